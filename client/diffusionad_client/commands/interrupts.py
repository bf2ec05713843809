"""A first Ctrl-C asks a run to end, a second one ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click


@contextmanager
def first_ctrl_c() -> Iterator[threading.Event]:
    """Give what the first Ctrl-C sets while the context lasts; the second raises as ever."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are the main thread's
        return
    before = signal.getsignal(signal.SIGINT)

    def on_first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.set()
        click.echo("Finishing what is under way; Ctrl-C again stops at once.", err=True)

    signal.signal(signal.SIGINT, on_first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
