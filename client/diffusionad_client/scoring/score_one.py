"""The pure step of a run: one image through a client, to its row and pictures."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from diffusionad_client import image_files, images
from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import (
    AccessDeniedError,
    ContractError,
    DeadlineExceededError,
    DiffusionADError,
    ImageError,
    ModelNotFoundError,
    OutputError,
    ServerBusyError,
    ServerUnavailableError,
)
from diffusionad_client.file_bytes import NamedBytes
from diffusionad_client.images import RGBImage
from diffusionad_client.scoring.drawing import Drawing, Heatmaps, Picture, draw
from diffusionad_client.scoring.row import FileFacts, Row
from diffusionad_client.scoring.sources import SourceImage
from diffusionad_client.sdk.arguments import Decode
from diffusionad_client.sdk.inspection import Inspection

# Errors that are the server's or the drive's, not the image's.
NOT_THE_IMAGES = (
    AccessDeniedError,
    ContractError,
    DeadlineExceededError,
    ModelNotFoundError,
    ServerBusyError,
    ServerUnavailableError,
)

# What Pillow and numpy raise for pictures that they cannot make.
_UNDRAWABLE = (ArithmeticError, MemoryError, OSError, ValueError)


class Inspect(Protocol):
    """What `score_one` asks of a client: `Client.inspect`, with the model given."""

    def __call__(
        self,
        image: RGBImage | NamedBytes,
        /,
        *,
        anomaly_map: bool,
        reconstruction: bool,
        decode: Decode = ...,
    ) -> Inspection:
        """Score one image. Raises a `DiffusionADError`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How images are judged, and what is drawn of them."""

    accept: float | None = None  # None: that of the release that answers
    reject: float | None = None
    depth: int = FULL_DEPTH  # bits a pixel of grey images that have more than 8 and do not say
    drawing: Drawing = field(default_factory=Drawing)
    decode: Decode = "client"  # who decodes the files; to the same score

    @property
    def draws_all(self) -> bool:
        """Whether the pixels of every image are needed here, which are decoded once then."""
        return self.decode != "server" and self.drawing.heatmaps is Heatmaps.ALL


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
    return score_content(read(image), inspect, recipe)


@dataclass(frozen=True)
class Content:
    """An image's file as it was read, or why it could not be."""

    name: str
    data: bytes = b""
    facts: FileFacts = field(default_factory=FileFacts)
    error: DiffusionADError | None = None


def read(image: SourceImage) -> Content:
    """Read an image's file. Raises `DeadlineExceededError` if it was not there in time."""
    try:
        data = image.read()
    except DeadlineExceededError:  # a drive that is gone is no better than a server that is
        raise
    except DiffusionADError as exc:
        return Content(image.name, error=exc)
    except MemoryError:
        return Content(image.name, error=_too_large())
    sha256 = hashlib.sha256(data).hexdigest()
    return Content(image.name, data, FileFacts(sha256=sha256, size=len(data), etag=image.etag))


def score_content(content: Content, inspect: Inspect, recipe: Recipe) -> ScoredImage:
    """Score an image whose file was read; see `score_one`."""
    name, facts = content.name, content.facts
    if content.error is not None:
        return ScoredImage(Row.failed(name, content.error))
    drawing = recipe.drawing
    ask = partial(
        inspect,
        anomaly_map=drawing.needs_map,
        reconstruction=drawing.heatmaps is not Heatmaps.NONE,
    )
    pixels: RGBImage | None = None
    try:
        if recipe.draws_all:
            started = time.perf_counter()
            pixels = images.load(content.data, depth=recipe.depth, name=name)
            decode_s = time.perf_counter() - started
            facts = _with_size(facts, pixels.shape)
            inspection = ask(pixels)
        else:
            inspection = ask(NamedBytes(content.data, name), decode=recipe.decode)
            decode_s = inspection.timings.decode_s
            facts = _with_size(facts, inspection.size)
    except NOT_THE_IMAGES:
        raise
    except ImageError as exc:
        return ScoredImage(Row.failed(name, exc, facts))
    except MemoryError:
        return ScoredImage(Row.failed(name, _too_large(), facts))
    except DiffusionADError as exc:
        facts = _with_size(facts, image_files.size_of(content.data))
        return ScoredImage(Row.failed(name, exc, facts))
    thresholds = inspection.thresholds.with_changes(accept=recipe.accept, reject=recipe.reject)
    inspection = inspection.judged_by(thresholds)
    try:
        if pixels is None and drawing.shows(inspection.verdict):
            pixels = images.load(content.data, depth=inspection.depth, name=name)
        pictures = draw(name, pixels, inspection, drawing)
    except (*_UNDRAWABLE, ImageError) as exc:
        error = OutputError(f"its pictures cannot be drawn: {exc}")
        return ScoredImage(Row.failed(name, error, facts))
    names = {kind: picture.name for kind, picture in pictures.items()}
    row = Row.scored(name, inspection, decode_s=decode_s, facts=facts, pictures=names)
    return ScoredImage(row, pictures)


def _too_large() -> ImageError:
    return ImageError("there is not enough memory to read and decode it")


def _with_size(facts: FileFacts, size: tuple[int, ...] | None) -> FileFacts:
    return facts if size is None else replace(facts, height=size[0], width=size[1])
