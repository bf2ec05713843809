"""Detection and localisation metrics, streamed: memory does not grow with the images.

A metric that its data cannot define (one class only, no defect pixel) is
None, never 0 or NaN.

Pixel metrics keep three histograms over the map's values instead of the maps.
A bin is a run of neighbouring float32 numbers of relative width 2^-11: fine
where most values crowd, near 0; near 1 it is as wide as 2.4e-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
    binary_roc,
)

PRO_LIMIT = 0.3  # PRO is taken over false-positive rates up to this one

_DROPPED_BITS = 12  # of float32's 23 mantissa bits
_BINS = (int(np.float32(1.0).view(np.int32)) >> _DROPPED_BITS) + 1
_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve of two rates in [0, 1], from the highest threshold down; straight in between."""

    x: NDArray[np.float64]  # (N,), never falling
    y: NDArray[np.float64]  # (N,)

    @property
    def area(self) -> float:
        """Area under the curve."""
        return float((np.diff(self.x) * (self.y[1:] + self.y[:-1]) / 2).sum())

    def up_to(self, end: float) -> Curve:
        """Cut the curve off at x = `end`, interpolated there."""
        inside = self.x < end
        at_end = np.interp(end, self.x, self.y)
        return Curve(np.append(self.x[inside], end), np.append(self.y[inside], at_end))


def image_roc(scores: Sequence[float], defective: Sequence[bool]) -> Curve | None:
    """Share of defective images found over share of good ones marked; None for one class."""
    if len(set(defective)) < 2:
        return None
    false_positive_rate, true_positive_rate, _ = binary_roc(
        torch.tensor(scores), torch.tensor(defective, dtype=torch.int)
    )
    return Curve(false_positive_rate.double().numpy(), true_positive_rate.double().numpy())


def image_auroc(scores: Sequence[float], defective: Sequence[bool]) -> float | None:
    """Area under the ROC curve of image scores, or None if there is one class only."""
    if len(set(defective)) < 2:
        return None
    return float(binary_auroc(torch.tensor(scores), torch.tensor(defective, dtype=torch.int)))


def image_average_precision(scores: Sequence[float], defective: Sequence[bool]) -> float | None:
    """Average precision of image scores, or None if there is one class only."""
    if len(set(defective)) < 2:
        return None
    return float(
        binary_average_precision(torch.tensor(scores), torch.tensor(defective, dtype=torch.int))
    )


def image_f1_max(
    scores: Sequence[float], defective: Sequence[bool]
) -> tuple[float, float] | tuple[None, None]:
    """Largest F1 over all thresholds, and the threshold: NG if score >= it. None for one class."""
    if len(set(defective)) < 2:
        return None, None
    precision, recall, thresholds = binary_precision_recall_curve(
        torch.tensor(scores), torch.tensor(defective, dtype=torch.int)
    )
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    best = int(f1[:-1].argmax())  # the curve's last point has no threshold
    return float(f1[best]), float(thresholds[best])


class PixelMetrics:
    """AUROC, average precision and PRO over the pixels of many images.

    Takes 6 MB however many they are. Those of two lots of images can be added.
    """

    def __init__(self) -> None:
        self._defect = np.zeros(_BINS)  # defect pixels
        self._normal = np.zeros(_BINS)  # all other pixels
        self._region = np.zeros(_BINS)  # defect pixels, each weighing 1 / size of its region
        self._regions = 0

    def __add__(self, other: PixelMetrics) -> PixelMetrics:
        total = PixelMetrics()
        total._defect = self._defect + other._defect
        total._normal = self._normal + other._normal
        total._region = self._region + other._region
        total._regions = self._regions + other._regions
        return total

    def update(
        self,
        anomaly_map: NDArray[np.float32],
        mask: NDArray[np.bool_],
        inside: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count one image: map (H, W) in [0, 1] and ground truth (H, W).

        Pixels outside the region of interest `inside` (H, W) count for
        nothing. A defect region that it cuts stays one region, of the size of
        its part inside.
        """
        if anomaly_map.shape != mask.shape:
            raise ValueError(f"map {anomaly_map.shape} and mask {mask.shape} differ in size")
        bins = _bins(anomaly_map)
        defect, normal = mask, ~mask
        if inside is not None:
            defect, normal = defect & inside, normal & inside
        self._normal += np.bincount(bins[normal], minlength=_BINS)
        if not defect.any():
            return
        self._defect += np.bincount(bins[defect], minlength=_BINS)
        labels, _ = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        regions = labels[defect]  # from 1 on
        sizes = np.bincount(regions)
        self._region += np.bincount(bins[defect], weights=1.0 / sizes[regions], minlength=_BINS)
        self._regions += np.count_nonzero(sizes)

    @property
    def auroc(self) -> float | None:
        """Area under the pixels' ROC curve."""
        if not self._is_defined:
            return None
        return Curve(_cumulated_share(self._normal), _cumulated_share(self._defect)).area

    @property
    def average_precision(self) -> float | None:
        """Sum over recall steps of the precision there."""
        if not self._is_defined:
            return None
        found, marked = self._found_and_marked()
        precision = found / np.maximum(marked, 1)
        recall_steps = self._defect[::-1] / found[-1]
        return float((precision * recall_steps).sum())

    @property
    def pro(self) -> float | None:
        """Per-region overlap, averaged over false-positive rates up to 0.3. Bergmann et al. (2020).

        Regions are 8-connected; the curve is interpolated at the limit and
        its area divided by it.
        """
        curve = self.pro_curve
        return None if curve is None else curve.area / PRO_LIMIT

    @property
    def pro_curve(self) -> Curve | None:
        """Mean share of a region found over the share of normal pixels marked, up to the limit."""
        if not self._is_defined:
            return None
        overlap = np.concatenate([[0.0], np.cumsum(self._region[::-1]) / self._regions])
        return Curve(_cumulated_share(self._normal), overlap).up_to(PRO_LIMIT)

    @property
    def precision_recall(self) -> Curve | None:
        """Precision over recall of the pixels."""
        if not self._is_defined:
            return None
        found, marked = self._found_and_marked()
        some = marked > 0  # above the highest value nothing is marked, and precision not defined
        return Curve(found[some] / found[-1], found[some] / marked[some])

    def _found_and_marked(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Count defect pixels, and pixels of any kind, at or above each threshold, falling."""
        found = np.cumsum(self._defect[::-1])
        return found, found + np.cumsum(self._normal[::-1])

    @property
    def _is_defined(self) -> bool:
        return bool(self._defect.any() and self._normal.any())


def _cumulated_share(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the counts at or above each threshold, from the highest down, starting at 0."""
    cumulated = np.concatenate([[0.0], np.cumsum(counts[::-1])])
    share: NDArray[np.float64] = cumulated / cumulated[-1]
    return share


def _bins(anomaly_map: NDArray[np.float32]) -> NDArray[np.int32]:
    # Non-negative floats order as their bit patterns do; adding 0 turns -0.0 into 0.0.
    values = np.clip(anomaly_map.astype(np.float32, copy=False), 0, 1) + np.float32(0)
    return values.view(np.int32) >> _DROPPED_BITS
