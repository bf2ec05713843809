"""CPU seconds of processes, from Linux's /proc: other programs hardly change them."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def of_group(group: int) -> float:
    """Add up the CPU seconds of a process group's living processes."""
    return sum(_of(path, group) for path in Path("/proc").glob("[0-9]*/stat"))


def of_process(pid: int) -> float:
    """Give the CPU seconds of one process; 0 once it has ended."""
    return _of(Path(f"/proc/{pid}/stat"), None)


def of_ended_children() -> float:
    """Add up the CPU seconds of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of(path: Path, group: int | None) -> float:
    with suppress(OSError):  # it ended just now
        fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        if group is None or int(fields[2]) == group:
            return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0
