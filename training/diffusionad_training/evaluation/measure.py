"""Measure a detector on labelled test images."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusionad_training.data.images import load_mask
from diffusionad_training.data.layout import Sample
from diffusionad_training.errors import DataError
from diffusionad_training.metrics import (
    PixelMetrics,
    image_auroc,
    image_average_precision,
    image_f1_max,
)
from diffusionad_training.scorers import Scorer

METRICS = (
    "image_auroc",
    "image_average_precision",
    "image_f1_max",
    "pixel_auroc",
    "pixel_average_precision",
    "pro",
)


@dataclass(frozen=True)
class ImageScore:
    """One line of the evaluation: which image, of which class, scored what."""

    path: str  # relative to the data folder
    defect: str
    score: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics in [0, 1]; None where the data cannot define one."""

    detector: str  # what was measured: the digest of a run's weights, or a served release
    image_auroc: float | None
    image_average_precision: float | None
    image_f1_max: float | None
    f1_threshold: float | None  # at which F1 is largest; of the test set, so no threshold to set
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None
    auroc_by_defect: dict[str, float | None]  # each class against all good images
    without_mask: int  # defective images without ground truth: not in the pixel metrics
    images: tuple[ImageScore, ...]
    seconds: float

    @property
    def metrics(self) -> dict[str, float | None]:
        """The overall metrics by name."""
        return {name: getattr(self, name) for name in METRICS}

    def to_json(self) -> str:
        """Render everything, the score of every image included."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)


def read_metrics(path: Path) -> tuple[str, dict[str, float | None]]:
    """Read the detector and the overall metrics of an evaluation's JSON. Raises `DataError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return document["detector"], {name: document[name] for name in METRICS}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataError(f"{path}: not an evaluation by `diffusionad evaluate`: {exc!r}") from exc


def evaluate(
    scorer: Scorer,
    root: Path,
    images: Sequence[Sample],
    *,
    detector: str,
    advance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score test images and measure. `advance` is called after each image.

    Defective images without a ground-truth mask count for the image metrics
    only. Raises `DataError` for an unreadable mask, and what the scorer raises
    for an unreadable image.
    """
    started = time.monotonic()
    pixels = PixelMetrics()
    scores: list[float] = []
    for image, scored in zip(images, scorer.score([i.path for i in images]), strict=True):
        if not np.isfinite(scored.score):
            raise DataError(f"{image.path}: the score is {scored.score}")
        scores.append(scored.score)
        if image.mask is not None:
            pixels.update(scored.anomaly_map, load_mask(image.mask, scorer.size))
        elif not image.is_defective:
            pixels.update(scored.anomaly_map, np.zeros_like(scored.anomaly_map, dtype=bool))
        advance()
    defective = [image.is_defective for image in images]
    defects = sorted({image.defect for image in images if image.is_defective})

    def against_good(defect: str) -> float | None:
        chosen = [i for i, im in enumerate(images) if im.defect == defect or not im.is_defective]
        return image_auroc([scores[i] for i in chosen], [defective[i] for i in chosen])

    f1_max, f1_threshold = image_f1_max(scores, defective)
    return Evaluation(
        detector=detector,
        image_auroc=image_auroc(scores, defective),
        image_average_precision=image_average_precision(scores, defective),
        image_f1_max=f1_max,
        f1_threshold=f1_threshold,
        pixel_auroc=pixels.auroc,
        pixel_average_precision=pixels.average_precision,
        pro=pixels.pro,
        auroc_by_defect={defect: against_good(defect) for defect in defects},
        without_mask=sum(image.is_defective and image.mask is None for image in images),
        images=tuple(
            ImageScore(image.path.relative_to(root).as_posix(), image.defect, score)
            for image, score in zip(images, scores, strict=True)
        ),
        seconds=time.monotonic() - started,
    )
