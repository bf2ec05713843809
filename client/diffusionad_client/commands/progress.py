"""How far a run of scoring is, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from diffusionad_client.scoring.row import Row

_FAILURES_NAMED = 10
LINE_EVERY_S = 10.0  # where no one watches a bar: in logs of jobs and containers


@contextmanager
def scoring_progress(images: int | None, title: str = "Scoring") -> Iterator[Callable[[Row], None]]:
    """Show how far the run is, and name the first failures.

    `images` is how many there are, None where that is not known. A terminal
    gets a bar, all else a plain line now and then.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    failed = 0
    shown = _bar if console.is_terminal else _lines
    with shown(console, images, title) as advance:

        def on_row(row: Row) -> None:
            nonlocal failed
            advance()
            if row.error_type is None:
                return
            failed += 1
            if failed <= _FAILURES_NAMED:
                console.print(f"Not scored: {row.image}: {row.error_message}")
            elif failed == _FAILURES_NAMED + 1:
                console.print("Further failures are in the results only.")

        yield on_row


@contextmanager
def _bar(console: Console, images: int | None, title: str) -> Iterator[Callable[[], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=images)
        yield lambda: bar.advance(task)


@contextmanager
def _lines(console: Console, images: int | None, title: str) -> Iterator[Callable[[], None]]:
    of = "" if images is None else f" of {images}"
    started = last = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last < LINE_EVERY_S:
            return
        last = now
        rate = done / (now - started)
        left = "" if images is None else f", {(images - done) / rate:.0f} s left"
        console.print(f"{title}: {done}{of} images, {rate:.1f} images/s{left}")

    yield advance
