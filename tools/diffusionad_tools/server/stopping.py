"""When a server that serves until it is told to stop is told so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests(on_stdin_eof: bool) -> Iterator[threading.Event]:
    """Give an event that Ctrl-C, SIGTERM or the end of standard input sets.

    An event and no exception: stopping in order is never itself interrupted.
    """
    stop = threading.Event()

    def request_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {s: signal.signal(s, request_stop) for s in (signal.SIGINT, signal.SIGTERM)}
    if on_stdin_eof:
        threading.Thread(target=_wait_for_stdin_eof, args=(stop,), daemon=True).start()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_stdin_eof(stop: threading.Event) -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would be held while the interpreter exits
        pass
    stop.set()
