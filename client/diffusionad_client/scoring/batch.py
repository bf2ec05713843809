"""One run from end to end: agree with the server on a release, score, write the results."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from diffusionad_client.artifacts.metadata import Verdict
from diffusionad_client.contract import FULL_DEPTH, Priority
from diffusionad_client.errors import DiffusionADError, OutputError
from diffusionad_client.output_folders import claimed
from diffusionad_client.pages.pictures import PictureFormat
from diffusionad_client.scoring.drawing import Drawing
from diffusionad_client.scoring.results import RESULTS, RunSummary
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.run import Inspect, Recipe, score_all, score_one
from diffusionad_client.scoring.sinks import FolderSink, Sink
from diffusionad_client.scoring.sources import Source, SourceImage
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.connection import Connection

_GREETING_S = 10.0  # long enough for any server that is there to say what it serves

# What a file system says to a name that it cannot hold; all else is the folder's.
_NAME_REFUSED = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user chose for a run."""

    output: Path
    model: str | None = None  # None: the server's only category
    accept: float | None = None  # None: the release's
    reject: float | None = None
    heatmaps: bool = True
    picture_format: PictureFormat = PictureFormat.PNG  # of the heat maps
    save_maps: bool = False
    overwrite: bool = False
    concurrency: int = 4

    def recipe(self, depth: int) -> Recipe:
        """What of it concerns each image, of a product whose images have that depth."""
        drawing = Drawing(
            heatmaps=self.heatmaps, maps=self.save_maps, heatmap_format=self.picture_format
        )
        return Recipe(accept=self.accept, reject=self.reject, depth=depth, drawing=drawing)


def score_batch(
    connection: Connection,
    source: Source,
    settings: Settings,
    on_row: Callable[[Row], None],
    add: Callable[[Path], object] = lambda output: None,
) -> RunSummary:
    """Score all images through a server into a folder; `on_row` hears of each.

    The server is asked for the model before anything is written. Earlier
    results stay what they are until all is done. `add` may write a page to the
    results, before another run can replace them.
    """
    with Client(connection, settings.model, priority=Priority.BATCH) as client:
        served = client.served(timeout=min(_GREETING_S, connection.timeout))
        # Refuses thresholds in the wrong order before anything is scored.
        served.metadata.thresholds.with_changes(accept=settings.accept, reject=settings.reject)
        inspect = partial(client.inspect, model=served.model)
        with (
            claimed(settings.output, RESULTS, overwrite=settings.overwrite) as output,
            FolderSink(output) as sink,
        ):
            run = ScoringRun(source, inspect, sink, settings, served.metadata.depth)
            summary = run.finish(served.model, connection.address, on_row)
            add(settings.output)
    return summary


@dataclass(frozen=True)
class ScoringRun:
    """Images from any source, scored by whatever inspects them, into any sink."""

    source: Source
    inspect: Inspect
    sink: Sink
    settings: Settings
    depth: int = FULL_DEPTH  # of the product's images, see pixels

    def finish(self, model: str, server: str, on_row: Callable[[Row], None]) -> RunSummary:
        """Score all images, and make what came of it the results."""
        started = datetime.now(timezone.utc).astimezone()
        clock = time.perf_counter()
        verdicts = Counter({verdict.value: 0 for verdict in Verdict})
        failed = 0
        rows = score_all(self.source, self.score, concurrency=self.settings.concurrency)
        with closing(rows):
            try:
                for row in rows:
                    self.sink.write(row)
                    if row.verdict is None:
                        failed += 1
                    else:
                        verdicts[row.verdict] += 1
                    on_row(row)
            except DiffusionADError as exc:
                of = "" if self.source.count is None else f" of {self.source.count}"
                done = f"{verdicts.total()}{of} images were scored"
                message = f"{exc}; stopped: {done}, see {self.sink.unfinished}"
                raise type(exc)(message) from exc
        summary = RunSummary(
            model=model,
            server=server,
            root=self.source.root,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - clock, 3),
            images=verdicts.total() + failed,
            failed=failed,
            verdicts=dict(verdicts),
        )
        self.sink.finish(summary)
        return summary

    def score(self, image: SourceImage) -> Row:
        """Score one image and keep its pictures; it fails if the sink cannot hold their names."""
        scored = score_one(image, self.inspect, self.settings.recipe(self.depth))
        kept: dict[str, Any] = {}  # named by the row, or no one would know whose they are
        try:
            for kind, picture in scored.pictures.items():
                self.sink.put(picture.name, picture.content)
                kept[kind] = picture.name
        except OutputError as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _NAME_REFUSED:
                return replace(Row.failed(image.name, exc, scored.row.facts), **kept)
            raise
        return scored.row
