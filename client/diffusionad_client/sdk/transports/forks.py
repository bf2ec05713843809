"""What a fork means for gRPC: between calls a process may be forked, during calls it may not.

A call that a thread has under way holds locks of gRPC's core. A process forked
in that moment has the locks and not the thread, and its own calls abort it, or
hang; gRPC's handlers of forks pass over such a fork. So calls are counted, and
a process that was forked during one is told so before it touches gRPC.
"""

from __future__ import annotations

import os
from threading import Lock

from diffusionad_client.errors import DiffusionADError


class CallsUnderWay:
    """Counts the calls of all clients of this process: `with` one, for each. Threads share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0
        self._unusable = False
        if hasattr(os, "register_at_fork"):  # Windows does not fork
            os.register_at_fork(
                before=self._lock.acquire,  # nobody begins a call until the fork is done
                after_in_parent=self._lock.release,
                after_in_child=self._begin_in_child,
            )

    def __enter__(self) -> None:
        self.check()
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1

    def check(self) -> None:
        """Raise a `DiffusionADError` in a process that was forked during calls."""
        if self._unusable:
            raise DiffusionADError(
                "this process was forked while another thread had a call to a server under way, "
                "and gRPC does not work in such a process; fork between calls, or begin the "
                "process otherwise: multiprocessing.get_context('spawn'), or a subprocess"
            )

    def _begin_in_child(self) -> None:
        self._unusable = self._unusable or self._count > 0
        self._count = 0
        self._lock.release()


CALLS_UNDER_WAY = CallsUnderWay()
