"""Notice that a process which serving needs has died or stands still.

Triton 2.51 never notices: with a stub killed, by the kernel's out-of-memory
killer perhaps, it says ready and fails every request of that model for ever. A
stub that is stopped lets requests hang, and brings the server down when it
goes on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from diffusionad_tools.server import linux

STOPPED_S = 3.0  # a process may stand still so long, under a debugger perhaps
_SETTLED_S = 1.0  # Triton asks at once how a stub ended that it has ended itself
_SCAN_S = 1.0  # between two looks at which processes there are
_STUB = "triton_python_backend_stub"


@dataclass
class _Watched:
    name: str
    started: int
    since: dict[str, float] = field(default_factory=dict)  # a state's letter -> since when


class Watch:
    """Looks at a tritonserver and its stubs.

    Where models come and go while the server runs, so do their stubs: those
    that Triton has ended are gone, those that died by themselves stay behind
    as zombies.
    """

    def __init__(
        self,
        server: int,
        *,
        models_change: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._models_change = models_change
        self._clock = clock
        self._watched: dict[int, _Watched] = {}
        self._next_scan = 0.0
        self._scan()

    def fault(self) -> str | None:
        """Say what has happened to which process; None while all are well."""
        now = self._clock()
        if self._models_change and now >= self._next_scan:
            self._scan()
            self._next_scan = now + _SCAN_S
        for pid, watched in list(self._watched.items()):
            state = linux.read_state(pid)
            if state is None or state.started != watched.started:
                if self._models_change and pid != self._server:
                    del self._watched[pid]
                    continue
                return f"{watched.name} is gone"
            lasted = self._lasted(watched, state.letter, now)
            if state.letter == linux.ZOMBIE and (not self._models_change or lasted >= _SETTLED_S):
                return (
                    f"{watched.name} {how_it_ended(os.waitstatus_to_exitcode(state.wait_status))}"
                )
            if state.letter == linux.STOPPED and lasted >= STOPPED_S:
                return f"{watched.name} has stood still for {lasted:.0f} s, stopped by a signal"
        return None

    def _scan(self) -> None:
        for pid in (self._server, *linux.children(self._server)):
            state = linux.read_state(pid)
            if state is None or pid in self._watched:
                continue
            if pid == self._server:
                self._watched[pid] = _Watched(f"Triton (process {pid})", state.started)
            elif (stub := _stub_name(pid)) is not None:
                self._watched[pid] = _Watched(stub, state.started)

    @staticmethod
    def _lasted(watched: _Watched, letter: str, now: float) -> float:
        watched.since = {letter: watched.since.get(letter, now)}
        return now - watched.since[letter]


def how_it_ended(code: int) -> str:
    """Put an exit code into words; below 0 it is the signal that ended the process."""
    if code >= 0:
        return f"exited with code {code}"
    memory = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code}{memory}"


def _stub_name(pid: int) -> str | None:
    """Name the model that a stub runs; None for a process that is none, or not yet."""
    words = linux.command_line(pid)
    if len(words) < 2 or Path(words[0]).name != _STUB:
        return None
    version = Path(words[1]).parent  # of MODEL/VERSION/FILE
    return f"the process of {version.parent.name} version {version.name} (process {pid})"
