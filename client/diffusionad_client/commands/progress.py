"""How far a run of scoring is, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusionad_client.scoring.row import Row

_FAILURES_NAMED = 10


@contextmanager
def scoring_progress(images: int | None, title: str = "Scoring") -> Iterator[Callable[[Row], None]]:
    """Show how far the run is, if someone is watching, and name the first failures."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    failed = 0
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
        console=console,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("", total=images)

        def on_row(row: Row) -> None:
            nonlocal failed
            bar.advance(task)
            if row.error_type is None:
                return
            failed += 1
            if failed <= _FAILURES_NAMED:
                console.print(f"Not scored: {row.image}: {row.error_message}")
            elif failed == _FAILURES_NAMED + 1:
                console.print("Further failures are in the results only.")

        yield on_row
