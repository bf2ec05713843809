"""The run itself: many images through a client, a bounded number at a time, in order."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import Protocol

import numpy as np

from diffusionad_client import images
from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import (
    AccessDeniedError,
    ContractError,
    DeadlineExceededError,
    DiffusionADError,
    ModelNotFoundError,
    OutputError,
    ServerBusyError,
    ServerGoneError,
    ServerUnavailableError,
)
from diffusionad_client.images import RGBImage
from diffusionad_client.scoring.drawing import Drawing, Heatmaps, Picture, draw
from diffusionad_client.scoring.patience import StoppedError
from diffusionad_client.scoring.row import FileFacts, Row
from diffusionad_client.scoring.sources import Source, SourceImage
from diffusionad_client.scoring.window import Window
from diffusionad_client.scoring.workers import Workers
from diffusionad_client.sdk.inspection import Inspection

# Errors that are the server's or the drive's, not the image's. So many in a row end the run, if
# they cannot pass by themselves or nothing has been answered for so long: a dead
# server must not turn a hundred thousand images into failures, one by one.
_NOT_THE_IMAGES = (
    AccessDeniedError,
    ContractError,
    DeadlineExceededError,
    ModelNotFoundError,
    ServerBusyError,
    ServerUnavailableError,
)
GIVE_UP_AFTER = 4
PATIENCE_S = 10.0
_LISTEN_EVERY_S = 0.5  # Windows tells a Ctrl-C only to those who do not wait for ever

# What Pillow and numpy raise for pictures that they cannot make.
_UNDRAWABLE = (ArithmeticError, MemoryError, OSError, ValueError)


GREY = np.full((8, 8, 3), 128, np.uint8)  # an image that no server can fail on


class Inspect(Protocol):
    """What `score_one` asks of a client: `Client.inspect`, with the model given."""

    def __call__(
        self, image: RGBImage, /, *, anomaly_map: bool, reconstruction: bool
    ) -> Inspection:
        """Score one image. Raises a `DiffusionADError`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How images are judged, and what is drawn of them."""

    accept: float | None = None  # None: that of the release that answers
    reject: float | None = None
    depth: int = FULL_DEPTH  # bits a pixel of grey images that have more than 8 and do not say
    drawing: Drawing = field(default_factory=Drawing)


@dataclass(frozen=True)
class ScoredImage:
    """The row of an image, with the pictures that it names."""

    row: Row
    pictures: Mapping[str, Picture] = field(default_factory=dict)  # field of the row -> picture


def score_one(image: SourceImage, inspect: Inspect, recipe: Recipe) -> ScoredImage:
    """Score one image. What is wrong with it comes back in its row.

    Nothing is written: the answer depends on the image's bytes, the model and
    the recipe alone. Raises the errors that are not the image's: the server's,
    and that its file was not there in time.
    """
    facts = FileFacts()
    try:
        content = image.read()
        facts = FileFacts(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        started = time.perf_counter()
        pixels = images.load(content, depth=recipe.depth, name=image.name)
        decode_s = time.perf_counter() - started
        facts = replace(facts, height=pixels.shape[0], width=pixels.shape[1])
    except DeadlineExceededError:  # a drive that is gone is no better than a server that is
        raise
    except DiffusionADError as exc:
        return ScoredImage(Row.failed(image.name, exc, facts))
    drawing = recipe.drawing
    try:
        inspection = inspect(
            pixels,
            anomaly_map=drawing.needs_map,
            reconstruction=drawing.heatmaps is not Heatmaps.NONE,
        )
    except _NOT_THE_IMAGES:
        raise
    except DiffusionADError as exc:
        return ScoredImage(Row.failed(image.name, exc, facts))
    thresholds = inspection.thresholds.with_changes(accept=recipe.accept, reject=recipe.reject)
    inspection = inspection.judged_by(thresholds)
    try:
        pictures = draw(image.name, pixels, inspection, drawing)
    except _UNDRAWABLE as exc:
        error = OutputError(f"its pictures cannot be drawn: {exc}")
        return ScoredImage(Row.failed(image.name, error, facts))
    names = {kind: picture.name for kind, picture in pictures.items()}
    row = Row.scored(image.name, inspection, decode_s=decode_s, facts=facts, pictures=names)
    return ScoredImage(row, pictures)


def score_all(
    source: Source,
    score: Callable[[SourceImage], Row | None],
    *,
    concurrency: int | Window,
    stop: Event | None = None,
) -> Generator[Row | None, None, None]:
    """Yield the row of every image, in order, with at most `concurrency` of them under way.

    None stands for an image that needed no scoring. Memory does not grow with
    the number of images. When GIVE_UP_AFTER images in a row fail by what is
    not theirs, and for PATIENCE_S if that may pass by itself, or none was ever
    answered, that error is raised. Once `stop` is set only what is under way is
    finished. Close the iterator to end it early; then nothing is waited for.
    """
    stop = Event() if stop is None else stop
    window = Window(concurrency) if isinstance(concurrency, int) else concurrency
    workers = Workers(window.threads, "score")
    under_way: deque[tuple[str, Future[Row | None]]] = deque()
    to_do = iter(source)
    failures_in_a_row = 0
    last_answer = time.monotonic()
    answered = False
    last_failure: DiffusionADError | None = None

    def unless_stopped(image: SourceImage) -> Row | None:
        if stop.is_set():
            raise StoppedError("the run stops")
        with window.image():
            return score(image)

    try:
        while True:
            # The next ones wait for a free thread.
            while len(under_way) < 2 * window.limit and not stop.is_set():
                image = next(to_do, None)
                if image is None:
                    break
                task = partial(unless_stopped, image)
                under_way.append((image.name, workers.submit(task)))
            if not under_way:
                break
            name, future = under_way.popleft()
            try:
                while not wait([future], timeout=_LISTEN_EVERY_S).done:
                    pass
                row = future.result()
                if row is not None and row.error_type is None:
                    answered = True
                    failures_in_a_row = 0
                    last_answer = time.monotonic()
            except StoppedError:
                continue
            except ServerGoneError:
                raise
            except _NOT_THE_IMAGES as exc:
                last_failure = exc
                failures_in_a_row += 1
                may_pass = exc.retryable and time.monotonic() - last_answer < PATIENCE_S
                if failures_in_a_row >= GIVE_UP_AFTER and not may_pass:
                    raise
                row = Row.failed(name, exc)
            yield row
        if last_failure is not None and not answered and not stop.is_set():
            raise last_failure
    finally:
        workers.stop()
