"""What Linux tells of processes, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STOPPED, ZOMBIE = "T", "Z"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTENS = "0A"  # <net/tcp_states.h>: TCP_LISTEN


@dataclass(frozen=True)
class ProcessState:
    """A process at one moment."""

    letter: str  # R, S, D: lives. T: stopped by a signal. Z: ended, and nobody has asked how
    parent: int
    group: int
    started: int  # in clock ticks since boot: with the id, a name that is never given twice
    wait_status: int  # of a zombie, as `os.waitpid` gives it; else 0


def read_state(pid: int) -> ProcessState | None:
    """Look at a process; None if there is none of that id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    letter, parent, group = fields[0], int(fields[1]), int(fields[2])
    return ProcessState(letter, parent, group, int(fields[19]), int(fields[49]))


def children(pid: int) -> Iterator[int]:
    """Give the ids of a process's children."""
    return (child for child, state in _all() if state.parent == pid)


def members(group: int) -> Iterator[int]:
    """Give the ids of the processes in a process group."""
    return (pid for pid, state in _all() if state.group == group)


def _all() -> Iterator[tuple[int, ProcessState]]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (state := read_state(int(entry))) is not None:
            yield int(entry), state


def resident_bytes(pid: int) -> int:
    """Read a process's resident memory, shared or its own; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def command_line(pid: int) -> list[str]:
    """Give the arguments that a process was started with; none if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.split("\0")[:-1]


def listens_on(pid: int, port: int) -> bool:
    """Tell whether it is this process that listens on a TCP port, and no other."""
    try:
        return not _listeners(pid, port).isdisjoint(_sockets(pid))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _listeners(pid: int, port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):  # an IPv4 address may be served by a socket of IPv6
        path = Path(f"/proc/{pid}/net/{table}")
        if path.exists():
            for line in path.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    for handle in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{handle}"))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found
