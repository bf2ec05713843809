"""Processes that are forked from the test runner's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def said_in_a_fork(do: Callable[[], object]) -> str:
    """Do something in a process that is forked; give what comes of it, or how it failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of the test runner's may run here
        try:
            said = str(do())
        except BaseException as exc:
            said = f"{type(exc).__name__}: {exc}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    end = time.monotonic() + 20
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < end, "the child hangs"
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(done[1]) == 0
    with os.fdopen(reading) as pipe:
        return pipe.read()
