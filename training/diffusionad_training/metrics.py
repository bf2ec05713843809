"""Detection and localisation metrics, streamed: memory does not grow with the images.

A metric that its data cannot define (one class only, no defect pixel) is
None, never 0 or NaN.

Pixel metrics keep three histograms over the map's values instead of the maps.
A bin is a run of neighbouring float32 numbers of relative width 2^-11: fine
where most values crowd, near 0; near 1 it is as wide as 2.4e-4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
)

PRO_LIMIT = 0.3  # PRO is taken over false-positive rates up to this one

_DROPPED_BITS = 12  # of float32's 23 mantissa bits
_BINS = (int(np.float32(1.0).view(np.int32)) >> _DROPPED_BITS) + 1
_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


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
    """AUROC, average precision and PRO over the pixels of many images."""

    def __init__(self) -> None:
        self._defect = np.zeros(_BINS)  # defect pixels
        self._normal = np.zeros(_BINS)  # all other pixels
        self._region = np.zeros(_BINS)  # defect pixels, each weighing 1 / size of its region
        self._regions = 0

    def update(self, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Count one image: map (H, W) in [0, 1] and ground truth (H, W)."""
        if anomaly_map.shape != mask.shape:
            raise ValueError(f"map {anomaly_map.shape} and mask {mask.shape} differ in size")
        bins = _bins(anomaly_map)
        self._normal += np.bincount(bins[~mask], minlength=_BINS)
        if not mask.any():
            return
        self._defect += np.bincount(bins[mask], minlength=_BINS)
        labels, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        sizes = np.bincount(labels[mask], minlength=count + 1)
        weights = 1.0 / sizes[labels[mask]]
        self._region += np.bincount(bins[mask], weights=weights, minlength=_BINS)
        self._regions += count

    @property
    def auroc(self) -> float | None:
        """Area under the pixels' ROC curve."""
        if not self._is_defined:
            return None
        return _area(*self._roc())

    @property
    def average_precision(self) -> float | None:
        """Sum over recall steps of the precision there."""
        if not self._is_defined:
            return None
        found = np.cumsum(self._defect[::-1])
        marked = found + np.cumsum(self._normal[::-1])
        precision = found / np.maximum(marked, 1)
        recall_steps = self._defect[::-1] / found[-1]
        return float((precision * recall_steps).sum())

    @property
    def pro(self) -> float | None:
        """Per-region overlap, averaged over false-positive rates up to 0.3. Bergmann et al. (2020).

        Regions are 8-connected; the curve is interpolated at the limit and
        its area divided by it.
        """
        if not self._is_defined:
            return None
        false_positive_rate, _ = self._roc()
        overlap = np.concatenate([[0.0], np.cumsum(self._region[::-1]) / self._regions])
        inside = false_positive_rate < PRO_LIMIT
        at_limit = np.interp(PRO_LIMIT, false_positive_rate, overlap)
        x = np.append(false_positive_rate[inside], PRO_LIMIT)
        y = np.append(overlap[inside], at_limit)
        return _area(x, y) / PRO_LIMIT

    @property
    def _is_defined(self) -> bool:
        return bool(self._defect.any() and self._normal.any())

    def _roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False- and true-positive rates from the highest threshold down, starting at 0, 0."""
        false_positives = np.concatenate([[0.0], np.cumsum(self._normal[::-1])])
        true_positives = np.concatenate([[0.0], np.cumsum(self._defect[::-1])])
        return false_positives / false_positives[-1], true_positives / true_positives[-1]


def _bins(anomaly_map: NDArray[np.float32]) -> NDArray[np.int32]:
    # Non-negative floats order as their bit patterns do; adding 0 turns -0.0 into 0.0.
    values = np.clip(anomaly_map.astype(np.float32, copy=False), 0, 1) + np.float32(0)
    return values.view(np.int32) >> _DROPPED_BITS


def _area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Area under a piecewise linear curve."""
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())
