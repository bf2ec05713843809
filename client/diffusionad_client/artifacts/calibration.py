"""Set the thresholds of a release from the scores of parts whose state is known.

Good parts suffice: a threshold is a quantile of what they score, for the share
of them that may be turned away. Defective parts, where there are some, set the
other one by the share of them that may pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.artifacts.metadata import Calibration, Thresholds
from diffusionad_client.contract import TOP_PIXELS
from diffusionad_client.errors import CalibrationError

CONFIDENCE = 0.95

Scores = Sequence[float] | NDArray[np.float64]


def calibrate(
    good_scores: Scores, *, false_reject_rate: float, review_rate: float
) -> tuple[Thresholds, Calibration]:
    """Choose thresholds so that good parts are NG, or REVIEW and NG, at most at these rates.

    The rates hold exactly on the scores given. How well they hold on the line
    depends on how many those are: `Calibration.false_reject_bound` bounds the
    true rate, and `Calibration.warning` says so when they are too few. Raises
    `CalibrationError`.
    """
    if not (_is_rate(false_reject_rate) and _is_rate(review_rate)) or (
        false_reject_rate > review_rate
    ):
        raise CalibrationError(
            f"need 0 < false_reject_rate ({false_reject_rate}) <= review_rate ({review_rate}) < 1"
        )
    scores = _checked(good_scores, "good")
    thresholds = Thresholds(
        accept=threshold_for(scores, review_rate), reject=threshold_for(scores, false_reject_rate)
    )
    calibration = Calibration(
        good_images=scores.size,
        false_reject_rate=false_reject_rate,
        review_rate=review_rate,
        false_reject_bound=rate_bound(false_reject_rate, scores.size),
        warning=_too_few(scores.size, false_reject_rate, "good", "a false-reject rate"),
    )
    return thresholds, calibration


def calibrate_with_defects(
    good_scores: Scores, defect_scores: Scores, *, false_reject_rate: float, miss_rate: float
) -> tuple[Thresholds, Calibration]:
    """Choose thresholds so that few good parts are NG and few defective ones OK.

    Good parts set one threshold, defective parts the other. Where they overlap,
    REVIEW is what neither rate allows to decide; where they lie apart, it is
    the gap that no image has been seen in. Either way good parts are NG, and
    defective ones OK, at most at the rates asked for. Raises `CalibrationError`.
    """
    for name, rate in (("false_reject_rate", false_reject_rate), ("miss_rate", miss_rate)):
        _check_rate(name, rate)
    good, defects = _checked(good_scores, "good"), _checked(defect_scores, "defective")
    of_good = threshold_for(good, false_reject_rate)
    of_defects = threshold_under(defects, miss_rate)
    thresholds = Thresholds(accept=min(of_good, of_defects), reject=max(of_good, of_defects))
    warnings = (
        _too_few(good.size, false_reject_rate, "good", "a false-reject rate"),
        _too_few(defects.size, miss_rate, "defective", "a miss rate"),
    )
    calibration = Calibration(
        good_images=good.size,
        false_reject_rate=false_reject_rate,
        review_rate=float((good >= thresholds.accept).mean()),
        false_reject_bound=rate_bound(false_reject_rate, good.size),
        defective_images=defects.size,
        miss_rate=miss_rate,
        miss_bound=rate_bound(miss_rate, defects.size),
        warning="; ".join(w for w in warnings if w) or None,
    )
    return thresholds, calibration


def threshold_for(scores: Scores, rate: float) -> float:
    """Find the lowest threshold that at most `rate` of the scores reach."""
    _check_rate("rate", rate)
    descending = np.sort(_checked(scores, "good"))[::-1]
    # Just above the highest score that must stay below it; float32, as scores are.
    highest = np.float32(descending[_allowed(rate, descending.size)])
    return float(np.nextafter(highest, np.float32(np.inf)))


def threshold_under(scores: Scores, rate: float) -> float:
    """Find the highest threshold that at most `rate` of the scores stay below."""
    _check_rate("rate", rate)
    ascending = np.sort(_checked(scores, "defective"))
    lowest = ascending[_allowed(rate, ascending.size)]
    rounded = np.float32(lowest)
    return float(rounded if rounded <= lowest else np.nextafter(rounded, np.float32(-np.inf)))


def pixel_level(anomaly_map: NDArray[np.float32]) -> float:
    """Give the value of a map's last pixel that counts in the score; (H, W) in [0, 1].

    Pixel thresholds are set by it, so that a single speck does not set them.
    """
    return float(np.partition(anomaly_map, -TOP_PIXELS, axis=None)[-TOP_PIXELS])


def rate_bound(rate: float, count: int, confidence: float = CONFIDENCE) -> float:
    """Bound the true rate behind a threshold that `rate` of `count` images were allowed to pass.

    Clopper and Pearson (1934): the rate at which so few or fewer would pass
    with probability 1 - confidence; exact for a quantile of the same images too.
    """
    passed = _allowed(rate, count)
    # log C(n, i) for i = 0..k, from C(n, i) / C(n, i - 1) = (n - i + 1) / i
    i = np.arange(1, passed + 1)
    choose = np.concatenate([[0.0], np.cumsum(np.log((count - i + 1) / i))])
    i = np.arange(passed + 1)

    def at_most_passed(p: float) -> float:
        terms = choose + i * math.log(p) + (count - i) * math.log1p(-p)
        return float(np.exp(terms).sum())

    low, high = passed / count, 1.0
    for _ in range(50):  # halvings: down to the last digits of a float
        middle = (low + high) / 2
        low, high = (middle, high) if at_most_passed(middle) > 1 - confidence else (low, middle)
    return high


def _allowed(rate: float, count: int) -> int:
    """How many of `count` images may pass a threshold at this rate."""
    return math.floor(rate * count)


def _check_rate(name: str, rate: float) -> None:
    if not _is_rate(rate):
        raise CalibrationError(f"{name} must lie between 0 and 1, not {rate!r}")


def _is_rate(rate: object) -> bool:
    return isinstance(rate, (int, float)) and 0 < rate < 1


def _checked(scores: Scores, state: str) -> NDArray[np.float64]:
    try:
        values = np.asarray(scores, dtype=np.float64).ravel()
    except (TypeError, ValueError) as exc:
        raise CalibrationError(f"the scores of {state} images must be numbers: {exc}") from exc
    if values.size == 0 or not np.isfinite(values).all():
        raise CalibrationError(
            f"thresholds need the scores of {state} images, all of them numbers; got "
            f"{values.size}, {int((~np.isfinite(values)).sum())} of them not finite"
        )
    return values


def _too_few(count: int, rate: float, state: str, what: str) -> str | None:
    """Say what `count` images can promise, if not even one of them may pass."""
    if _allowed(rate, count) >= 1:
        return None
    return (
        f"{count} {state} images are too few to set {what} of {rate:.2%}: the true rate "
        f"may be up to {rate_bound(rate, count):.1%} ({CONFIDENCE:.0%} confidence); use at least "
        f"{math.ceil(1 / rate)}"
    )
