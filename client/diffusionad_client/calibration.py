"""Set the thresholds of a release from the scores of good parts.

No defects are needed: a threshold is a quantile of what good parts score, for
the share of them that may be turned away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.errors import CalibrationError
from diffusionad_client.metadata import Calibration, Thresholds

CONFIDENCE = 0.95


def calibrate(
    good_scores: Sequence[float], *, false_reject_rate: float, review_rate: float
) -> tuple[Thresholds, Calibration]:
    """Choose thresholds so that good parts are NG, or REVIEW and NG, at most at these rates.

    The rates hold exactly on the scores given. How well they hold on the line
    depends on how many those are; `Calibration.warning` says so when they are
    too few. Raises `CalibrationError`.
    """
    if not 0 < false_reject_rate <= review_rate < 1:
        raise CalibrationError(
            f"need 0 < false_reject_rate ({false_reject_rate}) <= review_rate ({review_rate}) < 1"
        )
    scores = np.asarray(good_scores, dtype=np.float64)
    if scores.size == 0 or not np.isfinite(scores).all():
        raise CalibrationError(
            f"thresholds need the scores of good images, all of them numbers; got {scores.size}, "
            f"{int((~np.isfinite(scores)).sum())} of them not finite"
        )
    thresholds = Thresholds(
        accept=threshold_for(scores, review_rate), reject=threshold_for(scores, false_reject_rate)
    )
    calibration = Calibration(
        good_images=int(scores.size),
        false_reject_rate=false_reject_rate,
        review_rate=review_rate,
        warning=_too_few(int(scores.size), false_reject_rate),
    )
    return thresholds, calibration


def threshold_for(scores: Sequence[float] | NDArray[np.float64], rate: float) -> float:
    """Find the lowest threshold that at most `rate` of the scores reach."""
    descending = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    allowed = math.floor(rate * descending.size)
    # Just above the highest score that must stay below it; float32, as scores are.
    return float(np.nextafter(np.float32(descending[allowed]), np.float32(np.inf)))


def _too_few(count: int, rate: float) -> str | None:
    """Say what `count` images can promise, if that is less than `rate`.

    When none of n good images is rejected, the true rate lies below
    1 - (1 - confidence)^(1/n) with that confidence (Clopper-Pearson).
    """
    if math.floor(rate * count) >= 1:
        return None
    bound = 1 - (1 - CONFIDENCE) ** (1 / count)
    needed = math.ceil(1 / rate)
    return (
        f"{count} good images are too few to set a false-reject rate of {rate:.2%}: the true rate "
        f"may be up to {bound:.1%} ({CONFIDENCE:.0%} confidence); use at least {needed}"
    )
