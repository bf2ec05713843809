"""Images from any source, scored by any engine, into any sink."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from diffusionad_client.artifacts.metadata import Verdict
from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import DiffusionADError, OutputError
from diffusionad_client.scoring.beginning import Identity
from diffusionad_client.scoring.done import FAILED, Done, Judging
from diffusionad_client.scoring.engines import Engine
from diffusionad_client.scoring.listener import Listener
from diffusionad_client.scoring.results import RunSummary
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.score_one import ScoredImage
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.scoring.sinks import Sink
from diffusionad_client.scoring.sources import Source
from diffusionad_client.scoring.work import Task, Work

_GONE_NAMED = 5  # images that are no longer there, in a message

# What a file system says to a name that it cannot hold; all else is the folder's.
_NAME_REFUSED = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG)


@dataclass(frozen=True, kw_only=True)
class ScoringRun:
    """Images from any source, scored by any engine, into any sink."""

    source: Source
    engine: Engine
    settings: Settings
    depth: int = FULL_DEPTH  # of the product's images, see pixels
    judging: Judging | None = None  # None: whatever was done before is done again
    done: Done = field(default_factory=Done)
    listener: Listener = field(default_factory=Listener)
    stop: threading.Event = field(default_factory=threading.Event)
    endless: bool = False  # more images always come, also of the same names, until `stop`

    def finish(self, sink: Sink, identity: Identity) -> RunSummary:
        """Score what is missing, and make what came of it the results."""
        clock = time.perf_counter()
        counts = self.done.counts()
        ours: Counter[str] = Counter()
        work = Work(self.settings.recipe(self.depth), self.judging)
        rows = self.engine.score_all(self._tasks(), work, partial(self._keep, sink=sink))
        with closing(rows):
            try:
                for row in rows:
                    if row is None:
                        self.listener.skipped()
                        continue
                    row = self._completed(row)
                    sink.write(row)
                    state = FAILED if row.verdict is None else row.verdict
                    before = self.done.state(row.image)
                    counts[state] += 1
                    if before is not None:
                        counts[before] -= 1
                    ours[state] += 1
                    if self.endless:
                        self.done.add(row)
                    self.listener.row(row)
                    self.settings.max_failures.check(ours[FAILED], ours.total(), self.source.count)
                if self.stop.is_set() and not self.endless:
                    raise KeyboardInterrupt
            except DiffusionADError as exc:
                of = "" if self.source.count is None else f" of {self.source.count}"
                done = f"{counts.total() - counts[FAILED]}{of} images were scored"
                message = f"{exc}; stopped: {done}, see {sink.unfinished}"
                raise type(exc)(message) from exc
        summary = summarized(
            identity, counts, seconds=time.perf_counter() - clock, scored=ours.total()
        )
        sink.finish(summary)
        return summary

    def _tasks(self) -> Iterator[Task]:
        for image in self.source:
            yield Task(image, self.done.see(image.name))

    def _keep(self, scored: ScoredImage, sink: Sink) -> Row:
        """Keep the pictures of an image. It fails if the sink cannot hold their names."""
        kept: dict[str, Any] = {}  # named by the row, or no one would know whose they are
        try:
            for kind, picture in scored.pictures.items():
                sink.put(picture.name, picture.content)
                kept[kind] = picture.name
        except OutputError as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _NAME_REFUSED:
                row = scored.row
                return replace(Row.failed(row.image, exc, row.facts), **kept)
            raise
        return scored.row

    def tell_gone(self, rows: Generator[Row, None, None]) -> None:
        """Say which images of earlier rows are no longer there."""
        if not self.done.gone:
            return
        names = []
        with closing(rows):
            for name in self.done.unseen(rows):
                names.append(name)
                if len(names) == _GONE_NAMED:
                    break
        more = self.done.gone - len(names)
        rest = f" and {more} more" if more else ""
        self.listener.notice(
            f"{self.done.gone} images of the results are no longer there, and their records "
            f"stay: {', '.join(names)}{rest}"
        )

    def _completed(self, row: Row) -> Row:
        return replace(
            row,
            scored_at=datetime.now(timezone.utc).isoformat("T", "milliseconds"),
            settings=self.settings.digest,
            fields=self.settings.fields.fields(row.image),
        )


def summarized(
    identity: Identity, counts: Counter[str], *, seconds: float, scored: int
) -> RunSummary:
    """Say what a run did that took so long; `counts` are of all results, by `Done`'s states."""
    return RunSummary(
        **asdict(identity),
        seconds=round(seconds, 3),
        images=counts.total(),
        failed=counts[FAILED],
        verdicts={verdict.value: counts[verdict.value] for verdict in Verdict},
        scored=scored,
    )
