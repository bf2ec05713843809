"""How far a run of scoring is, on standard error: a bar, plain lines, or JSON for machines."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffusionad_client.scoring.listener import Listener

if TYPE_CHECKING:
    from rich.console import Console

    from diffusionad_client.scoring.row import Row

_FAILURES_NAMED = 10
LINE_EVERY_S = 5.0  # where no one watches a bar: in logs of jobs and containers
_JSON_EVERY_S = 1.0
_RATE_OVER_S = 30.0  # the time left follows from how fast the run was lately


class ScoringPace:
    """Counts of a run so far, and how fast it is."""

    def __init__(self, images: int | None) -> None:
        self.images = images
        self.skipped = 0
        self.failed = 0
        self.verdicts: Counter[str] = Counter()
        self._marks = [(time.monotonic(), 0)]  # when how many were scored, lately

    @property
    def scored(self) -> int:
        """How many images this run has scored, or failed to."""
        return self.verdicts.total() + self.failed

    @property
    def done(self) -> int:
        """How many images need no more work."""
        return self.scored + self.skipped

    def add(self, row: Row) -> None:
        """Count an image."""
        if row.verdict is None:
            self.failed += 1
        else:
            self.verdicts[row.verdict] += 1

    def rate(self) -> float:
        """Images a second, lately."""
        now = time.monotonic()
        self._marks.append((now, self.scored))
        while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_OVER_S:
            del self._marks[0]
        began, before = self._marks[0]
        return (self.scored - before) / max(now - began, 1e-6)

    def left_s(self, rate: float) -> float | None:
        """Seconds to go; None if that is not known."""
        return None if self.images is None or not rate else max(self.images - self.done, 0) / rate

    def counts(self) -> str:
        """Say the counts in a line, such as "OK 12, NG 1, failed 2"."""
        parts = [f"{name} {count}" for name, count in sorted(self.verdicts.items())]
        parts += [f"failed {self.failed}"] if self.failed else []
        parts += [f"done before {self.skipped}"] if self.skipped else []
        return ", ".join(parts) or "none yet"


@contextmanager
def scoring_progress(
    images: int | None, title: str = "Scoring", *, as_json: bool = False
) -> Iterator[Listener]:
    """Show how far the run is, and name the first failures.

    `images` is how many there are, None where that is not known. A terminal
    gets a bar, all else a plain line every few seconds; `as_json` gives a line
    of JSON every second instead.
    """
    from rich.console import Console

    if as_json:
        with _JsonLines(images) as lines:
            yield lines
        return
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if console.is_terminal:
        with _bar(console, images, title) as bar:
            yield bar
    else:
        yield _Lines(console, images, title)


class _Spoken(Listener):
    """Names the first failures, and what else people want to read."""

    def __init__(self, console: Console, images: int | None) -> None:
        self.console = console
        self.pace = ScoringPace(images)

    def row(self, row: Row) -> None:
        self.pace.add(row)
        self.advance()
        if row.error_type is None:
            return
        if self.pace.failed <= _FAILURES_NAMED:
            self.console.print(f"Not scored: {row.image}: {row.error_message}")
        elif self.pace.failed == _FAILURES_NAMED + 1:
            self.console.print("Further failures are in the results only.")

    def skipped(self) -> None:
        self.pace.skipped += 1
        self.advance()

    def notice(self, text: str) -> None:
        self.console.print(text)

    def advance(self) -> None:
        """Show that one more image is done."""


class _Lines(_Spoken):
    def __init__(self, console: Console, images: int | None, title: str) -> None:
        super().__init__(console, images)
        self._title = title
        self._of = "" if images is None else f" of {images}"
        self._last = time.monotonic()

    def advance(self) -> None:
        now = time.monotonic()
        if now - self._last < LINE_EVERY_S:
            return
        self._last = now
        rate = self.pace.rate()
        left_s = self.pace.left_s(rate)
        left = "" if left_s is None else f", {left_s:.0f} s left"
        self.console.print(
            f"{self._title}: {self.pace.done}{self._of} images, {rate:.1f} images/s{left}; "
            + self.pace.counts()
        )


@contextmanager
def _bar(console: Console, images: int | None, title: str) -> Iterator[_Spoken]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        *(TextColumn(title), BarColumn(), MofNCompleteColumn(), Remaining()),
        TextColumn("{task.fields[rate]:.1f} images/s  {task.fields[counts]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=images, rate=0.0, counts="")

        class Drawn(_Spoken):
            def advance(self) -> None:
                bar.update(task, advance=1, rate=self.pace.rate(), counts=self.pace.counts())

        yield Drawn(console, images)


class _JsonLines(Listener):
    """One object a line: progress every second and at the end, notices when they come."""

    def __init__(self, images: int | None) -> None:
        self._pace = ScoringPace(images)
        self._last = time.monotonic()
        self._writing = threading.Lock()

    def __enter__(self) -> _JsonLines:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress()

    def row(self, row: Row) -> None:
        self._pace.add(row)
        self._now_and_then()

    def skipped(self) -> None:
        self._pace.skipped += 1
        self._now_and_then()

    def notice(self, text: str) -> None:
        self._write({"event": "notice", "text": text})

    def _now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._last >= _JSON_EVERY_S:
            self._last = now
            self._progress()

    def _progress(self) -> None:
        pace = self._pace
        rate = pace.rate()
        left_s = pace.left_s(rate)
        self._write(
            {
                "event": "progress",
                "images": pace.images,
                "done": pace.done,
                "skipped": pace.skipped,
                "failed": pace.failed,
                "verdicts": dict(pace.verdicts),
                "images_per_s": round(rate, 2),
                "left_s": None if left_s is None else round(left_s, 1),
            }
        )

    def _write(self, document: dict[str, Any]) -> None:
        with self._writing:
            print(json.dumps(document), file=sys.stderr, flush=True)
