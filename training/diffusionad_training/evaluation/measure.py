"""Score test images and measure: one pass, in memory that does not grow with the images."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.artifacts.roi import Mask
from diffusionad_client.artifacts.roi import digest as roi_digest
from diffusionad_training.data.ground_truth import GroundTruth
from diffusionad_training.data.layout import GOOD, Sample
from diffusionad_training.errors import DataError
from diffusionad_training.evaluation.examples import Examples
from diffusionad_training.evaluation.metrics import (
    Curve,
    PixelMetrics,
    image_auroc,
    image_average_precision,
    image_f1_max,
    image_roc,
)
from diffusionad_training.evaluation.results import ClassFigures, Evaluation, ImageScore
from diffusionad_training.evaluation.scorers import Scorer


@dataclass(frozen=True)
class Curves:
    """What lies behind the figures; None where the data cannot define one."""

    image_roc: Curve | None
    pro: Curve | None
    precision_recall: Curve | None  # of the pixels


@dataclass(frozen=True)
class Measured:
    """The figures, and what else a page shows."""

    evaluation: Evaluation
    curves: Curves
    examples: Examples


def measure(
    scorer: Scorer,
    root: Path,
    images: Sequence[Sample],
    *,
    detector: str,
    roi: Mask | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Measured:
    """Score test images and measure. `advance` is called after each image.

    Defective images without a ground-truth mask count for the image metrics
    only. Of the region of interest `roi` (S, S), which the scorer must know by
    itself, only the pixels inside count; a defective image whose defects all
    lie outside is neither good nor defective there, and counts for nothing.
    Raises `DataError` for an unreadable mask, and what the scorer raises for
    an unreadable image.
    """
    started = time.monotonic()
    pixels: defaultdict[str, PixelMetrics] = defaultdict(PixelMetrics)  # by class
    examples = Examples()
    rows: list[ImageScore] = []
    truth = GroundTruth(root, scorer.size)
    marked: list[bool] = []  # whether the defects of each image are known
    for image, scored in zip(images, scorer.score([i.path for i in images]), strict=True):
        if not np.isfinite(scored.score):
            raise DataError(f"{image.path}: the score is {scored.score}")
        mask = truth.load(image)
        marked.append(mask is not None)
        outside = image.is_defective and mask is not None and _lies_outside(mask, roi)
        path = image.path.relative_to(root).as_posix()
        rows.append(ImageScore(path, image.defect, scored.score, outside))
        if not outside:
            examples.show(image, scored, mask)
            if mask is not None:
                pixels[image.defect].update(scored.anomaly_map, mask, roi)
        advance()
    counted = [row for row in rows if not row.outside]
    scores, defective = _columns(counted)
    f1_max, f1_threshold = image_f1_max(scores, defective)
    total = reduce(add, pixels.values(), PixelMetrics())
    evaluation = Evaluation(
        detector=detector,
        roi=None if roi is None else roi_digest(roi),
        image_auroc=image_auroc(scores, defective),
        image_average_precision=image_average_precision(scores, defective),
        image_f1_max=f1_max,
        f1_threshold=f1_threshold,
        pixel_auroc=total.auroc,
        pixel_average_precision=total.average_precision,
        pro=total.pro,
        by_class=_by_class(rows, marked, pixels),
        images=tuple(rows),
        seconds=time.monotonic() - started,
        remarks=(*_undefined(rows, marked, total), *truth.oddities.described()),
    )
    curves = Curves(image_roc(scores, defective), total.pro_curve, total.precision_recall)
    return Measured(evaluation, curves, examples)


def _lies_outside(mask: NDArray[np.bool_], roi: Mask | None) -> bool:
    return roi is not None and bool(mask.any()) and not (mask & roi).any()


def _undefined(
    rows: Sequence[ImageScore], marked: Sequence[bool], pixels: PixelMetrics
) -> Iterator[str]:
    """Say why figures are undefined, if some are."""
    counted = [
        (row.defect, known) for row, known in zip(rows, marked, strict=True) if not row.outside
    ]
    good = sum(defect == GOOD for defect, _ in counted)
    defective = len(counted) - good
    if not defective:
        yield (
            f"figures are undefined: all {good} test images that count are good; add defective "
            "ones, in a folder for each class of defect"
        )
        return
    if not good:
        yield (
            f"image figures are undefined: all {defective} test images that count are defective; "
            f"add good ones, in a folder {GOOD!r}"
        )
    if pixels.auroc is None:
        masks = any(known for defect, known in counted if defect != GOOD)
        why = "no good pixels" if masks else "no masks of defective images that mark anything"
        yield f"pixel figures are undefined: there are {why}"


def _columns(rows: Sequence[ImageScore]) -> tuple[list[float], list[bool]]:
    return [row.score for row in rows], [row.defect != GOOD for row in rows]


def _by_class(
    rows: Sequence[ImageScore], marked: Sequence[bool], pixels: Mapping[str, PixelMetrics]
) -> dict[str, ClassFigures]:
    figures = {}
    for defect in sorted({row.defect for row in rows} - {GOOD}):
        own = [(m, row) for m, row in zip(marked, rows, strict=True) if row.defect == defect]
        counted = [is_marked for is_marked, row in own if not row.outside]
        scores, defective = _columns(
            [row for row in rows if row.defect in (defect, GOOD) and not row.outside]
        )
        both = pixels.get(defect, PixelMetrics()) + pixels.get(GOOD, PixelMetrics())
        figures[defect] = ClassFigures(
            images=len(counted),
            without_mask=counted.count(False),
            outside=len(own) - len(counted),
            image_auroc=image_auroc(scores, defective),
            image_average_precision=image_average_precision(scores, defective),
            pixel_auroc=both.auroc,
            pixel_average_precision=both.average_precision,
            pro=both.pro,
        )
    return figures
