"""One run from end to end: agree with the server on a release, score, write the results."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from diffusionad_client.artifacts.metadata import Verdict
from diffusionad_client.contract import FULL_DEPTH, Priority
from diffusionad_client.errors import (
    DeadlineExceededError,
    DiffusionADError,
    OutputError,
    ServerBusyError,
)
from diffusionad_client.output_folders import OutputFolder, claimed
from diffusionad_client.scoring.beginning import Beginning, Identity, begin
from diffusionad_client.scoring.done import FAILED, Done, Judging
from diffusionad_client.scoring.listener import Listener
from diffusionad_client.scoring.patience import Patience
from diffusionad_client.scoring.results import RESULTS, RESULTS_JSONL, RunSummary, read_lines
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.run import GREY, Inspect, score_all, score_one
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.scoring.sinks import FolderSink, Sink
from diffusionad_client.scoring.sources import Source, SourceImage
from diffusionad_client.scoring.window import GrowingWindow
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.connection import Connection

_GREETING_S = 10.0  # long enough for any server that is there to say what it serves
_GONE_NAMED = 5  # images that are no longer there, in a message

# What a file system says to a name that it cannot hold; all else is the folder's.
_NAME_REFUSED = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG)


def score_batch(
    connection: Connection,
    source: Source,
    settings: Settings,
    listener: Listener,
    add: Callable[[Path], object] = lambda output: None,
    stop: threading.Event | None = None,
) -> RunSummary:
    """Score all images through a server into a folder, or what is missing there.

    The server is asked for the model before anything is written. `add` may
    write a page to the results, before another run can change them. When
    `stop` is set what is under way is finished, and `KeyboardInterrupt` raised.
    Raises a `DiffusionADError`; `ServerGoneError` and `TooManyFailuresError`
    are of runs that the same call goes on with.
    """
    with Client(connection, settings.model, priority=Priority.BATCH) as client:
        served = client.served(timeout=min(_GREETING_S, connection.timeout))
        # Refuses thresholds in the wrong order before anything is scored.
        thresholds = served.metadata.thresholds.with_changes(
            accept=settings.accept, reject=settings.reject
        )
        judging = Judging(served.metadata.release, thresholds, settings.digest)
        started = datetime.now(timezone.utc).astimezone().isoformat("T", "seconds")
        ours = Identity(served.model, source.root, connection.address, started)
        with claimed(settings.output, RESULTS, overwrite=True, keep_parts=True) as output:
            beginning, identity = begin(output, ours, overwrite=settings.overwrite)
            identity.write(output)
            run = ScoringRun(
                source=source,
                inspect=partial(client.inspect, model=served.model),
                settings=settings,
                depth=served.metadata.depth,
                done=_read_done(output, beginning, judging, settings),
                listener=listener,
                stop=threading.Event() if stop is None else stop,
                overloads=partial(_overloads, client),
            )
            goes_on = beginning is Beginning.WHOLE
            with FolderSink(output, settings.formats, goes_on=goes_on) as sink:
                summary = run.finish(sink, identity)
            run.tell_gone(read_lines(settings.output / RESULTS_JSONL))
            add(settings.output)
    return summary


def _overloads(client: Client) -> int:
    """Count how often servers had no room in their queues, or did not answer in time."""
    kinds = (ServerBusyError.__name__, DeadlineExceededError.__name__)
    return sum(server.errors.get(kind, 0) for server in client.stats().servers for kind in kinds)


def _read_done(
    output: OutputFolder, beginning: Beginning, judging: Judging, settings: Settings
) -> Done:
    if beginning is Beginning.ANEW:
        return Done()
    whole = beginning is Beginning.WHOLE
    path = (output.whole if whole else output.part)(RESULTS_JSONL)
    return Done.of(read_lines(path), judging, retry_failed=settings.retry_failed)


@dataclass(frozen=True, kw_only=True)
class ScoringRun:
    """Images from any source, scored by whatever inspects them, into any sink."""

    source: Source
    inspect: Inspect
    settings: Settings
    depth: int = FULL_DEPTH  # of the product's images, see pixels
    done: Done = field(default_factory=Done)
    listener: Listener = field(default_factory=Listener)
    stop: threading.Event = field(default_factory=threading.Event)
    overloads: Callable[[], int] = lambda: 0  # how often the server had too much to do

    def finish(self, sink: Sink, identity: Identity) -> RunSummary:
        """Score what is missing, and make what came of it the results."""
        clock = time.perf_counter()
        counts = self.done.counts()
        ours: Counter[str] = Counter()
        patience = Patience(
            lambda: self.inspect(GREY, anomaly_map=False, reconstruction=False),
            seconds=self.settings.patience,
            notice=self.listener.notice,
            stop=self.stop,
        )
        rows = score_all(
            self.source,
            lambda image: patience.run(lambda: self.score(image, sink)),
            concurrency=self.settings.concurrency or GrowingWindow(self.overloads),
            stop=self.stop,
        )
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
                    self.listener.row(row)
                    self.settings.max_failures.check(ours[FAILED], ours.total(), self.source.count)
                if self.stop.is_set():
                    raise KeyboardInterrupt
            except DiffusionADError as exc:
                of = "" if self.source.count is None else f" of {self.source.count}"
                done = f"{counts.total() - counts[FAILED]}{of} images were scored"
                message = f"{exc}; stopped: {done}, see {sink.unfinished}"
                raise type(exc)(message) from exc
        summary = RunSummary(
            model=identity.model,
            server=identity.server,
            root=identity.root,
            started=identity.started,
            seconds=round(time.perf_counter() - clock, 3),
            images=counts.total(),
            failed=counts[FAILED],
            verdicts={verdict.value: counts[verdict.value] for verdict in Verdict},
            scored=ours.total(),
        )
        sink.finish(summary)
        return summary

    def score(self, image: SourceImage, sink: Sink) -> Row | None:
        """Score one image and keep its pictures; None if that was done before.

        It fails if the sink cannot hold their names.
        """
        if self.done.see(image.name):
            sha256 = None
            try:
                content = image.read()
            except DeadlineExceededError:
                raise
            except DiffusionADError:  # which fails again below, unless it is known to fail
                pass
            else:
                sha256 = hashlib.sha256(content).hexdigest()
                image = SourceImage(image.name, lambda: content)
            if self.done.covers(image.name, sha256):
                return None
        scored = score_one(image, self.inspect, self.settings.recipe(self.depth))
        kept: dict[str, Any] = {}  # named by the row, or no one would know whose they are
        try:
            for kind, picture in scored.pictures.items():
                sink.put(picture.name, picture.content)
                kept[kind] = picture.name
        except OutputError as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _NAME_REFUSED:
                return replace(Row.failed(image.name, exc, scored.row.facts), **kept)
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
