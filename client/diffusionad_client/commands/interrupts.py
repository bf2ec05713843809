"""A first Ctrl-C asks a run to end, a second one ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click


@contextmanager
def first_ctrl_c(*others: signal.Signals) -> Iterator[threading.Event]:
    """Give what the first Ctrl-C sets while the context lasts; the second raises as ever.

    Other signals that are named do the same.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are the main thread's
        return
    numbers = (signal.SIGINT, *others)
    before = {number: signal.getsignal(number) for number in numbers}

    def on_first(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.default_int_handler)
        stop.set()
        click.echo("Finishing what is under way; Ctrl-C again stops at once.", err=True)

    for number in numbers:
        signal.signal(number, on_first)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
