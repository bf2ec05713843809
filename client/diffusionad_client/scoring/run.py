"""The run itself: many images through a client, a bounded number at a time, in order."""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffusionad_client import images
from diffusionad_client.errors import (
    AccessDeniedError,
    ContractError,
    DeadlineExceededError,
    DiffusionADError,
    ModelNotFoundError,
    OutputError,
    ServerUnavailableError,
)
from diffusionad_client.files import write_aside
from diffusionad_client.pages import pictures
from diffusionad_client.scoring.results import ANOMALY_MAPS, HEATMAPS, RECONSTRUCTIONS, Row
from diffusionad_client.scoring.sources import ImageSet
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.inspection import Inspection

# Errors that are the server's, not the image's. So many in a row end the run, if
# they cannot pass by themselves or nothing has been answered for so long: a dead
# server must not turn a hundred thousand images into failures, one by one.
_OF_THE_SERVER = (
    AccessDeniedError,
    ContractError,
    DeadlineExceededError,
    ModelNotFoundError,
    ServerUnavailableError,
)
GIVE_UP_AFTER = 4
PATIENCE_S = 10.0

# What Pillow and numpy raise for pictures that they cannot make.
_UNDRAWABLE = (ArithmeticError, MemoryError, OSError, ValueError)
# What a file system says to a name that it cannot hold; all else is the folder's.
_NAME_REFUSED = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores one image after another and writes its pictures. Threads may share it."""

    client: Client
    model: str
    output: Path
    accept: float | None = None  # None: that of the release that answers
    reject: float | None = None
    heatmaps: bool = True  # and the reconstructions beside them
    save_maps: bool = False

    def score(self, path: Path, name: str) -> Row:
        """Score one image. What is wrong with it comes back in its row.

        Raises the errors that are not the image's: the server's, and those of
        the output folder.
        """
        started = time.perf_counter()
        try:
            pixels = images.load(path)
            decode_s = time.perf_counter() - started
            inspection = self.client.inspect(
                pixels,
                model=self.model,
                anomaly_map=self.heatmaps or self.save_maps,
                reconstruction=self.heatmaps,
            )
        except _OF_THE_SERVER:
            raise
        except DiffusionADError as exc:
            return Row.failed(name, exc)
        thresholds = inspection.thresholds.with_changes(accept=self.accept, reject=self.reject)
        inspection = inspection.judged_by(thresholds)
        try:
            files = self._draw(name, pixels, inspection)
        except _UNDRAWABLE as exc:
            return Row.failed(name, OutputError(f"its pictures cannot be drawn: {exc}"))
        except OutputError as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _NAME_REFUSED:
                return Row.failed(name, exc)
            raise
        return Row.scored(name, inspection, decode_s, **files)

    def _draw(self, name: str, pixels: images.RGBImage, inspection: Inspection) -> dict[str, str]:
        made: dict[str, bytes] = {}
        files: dict[str, str] = {}
        if self.heatmaps and inspection.anomaly_map is not None:
            files["heatmap"] = f"{HEATMAPS}/{name}.png"
            drawn = pictures.heat_map(pixels, inspection.anomaly_map, inspection.pixel_threshold)
            made["heatmap"] = pictures.png(drawn)
        if inspection.reconstruction is not None:
            files["reconstruction"] = f"{RECONSTRUCTIONS}/{name}.jpg"
            normal = Image.fromarray(np.ascontiguousarray(inspection.reconstruction))
            normal = normal.resize(pictures.picture_size(pixels), Image.Resampling.BILINEAR)
            made["reconstruction"] = pictures.jpeg(normal)
        if self.save_maps and inspection.anomaly_map is not None:
            files["anomaly_map"] = f"{ANOMALY_MAPS}/{name}.png"
            made["anomaly_map"] = pictures.map_png(inspection.anomaly_map)
        for kind, content in made.items():
            write_aside(self.output / files[kind], content)
        return files


def score_all(scorer: Scorer, found: ImageSet, *, concurrency: int) -> Generator[Row, None, None]:
    """Yield the row of every image, in order, with at most `concurrency` of them under way.

    Memory does not grow with the number of images. When the server fails
    GIVE_UP_AFTER images in a row, and for PATIENCE_S if that may pass by
    itself, or never answered one, its error is raised. Close the iterator to
    end it early; what is under way is not waited for.
    """
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="score")
    under_way: deque[tuple[str, Future[Row]]] = deque()
    names = iter(found.names)
    failures_in_a_row = 0
    last_answer = time.monotonic()
    answered = False
    last_failure: DiffusionADError | None = None
    try:
        while True:
            while len(under_way) < 2 * concurrency:  # the next ones wait for a free thread
                name = next(names, None)
                if name is None:
                    break
                task = pool.submit(scorer.score, found.path(name), name)
                under_way.append((name, task))
            if not under_way:
                break
            name, task = under_way.popleft()
            try:
                row = task.result()
                if row.error_type is None:
                    answered = True
                    failures_in_a_row = 0
                    last_answer = time.monotonic()
            except _OF_THE_SERVER as exc:
                last_failure = exc
                failures_in_a_row += 1
                may_pass = exc.retryable and time.monotonic() - last_answer < PATIENCE_S
                if failures_in_a_row >= GIVE_UP_AFTER and not may_pass:
                    raise
                row = Row.failed(name, exc)
            yield row
        if last_failure is not None and not answered:
            raise last_failure
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
