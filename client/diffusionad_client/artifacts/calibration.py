"""Set the thresholds of a release from the scores of parts whose state is known.

Good parts suffice: a threshold is a quantile of what they score, for the share
of them that may be turned away. Defective parts, where there are some, set the
other one by the share of them that may pass.

The quantile of the images given would be passed by more images of the line than
was asked for: by 3.2 % instead of 1 % with 30 of them. So a threshold is set for
what the next image will do, see `threshold_for`.
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
_EDGE = 1e-6  # from 0 and 1, where the logit ends
MIN_FOR_TAIL = 10  # scores; of fewer the highest is all that is known

Scores = Sequence[float] | NDArray[np.float64]


def calibrate(
    good_scores: Scores, *, false_reject_rate: float, review_rate: float
) -> tuple[Thresholds, Calibration]:
    """Choose thresholds so that good parts are NG, or REVIEW and NG, at most at these rates.

    The rates hold on the scores given, and on average over parts to come. How
    far a single calibration may lie off depends on how many scores those are:
    `Calibration.false_reject_bound` bounds the true rate, and `Calibration.warning`
    says so when they are too few. Raises `CalibrationError`.
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
        false_reject_bound=rate_bound(_passing(false_reject_rate, scores.size), scores.size),
        warning=_too_few_good(scores.size, false_reject_rate),
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
        _too_few_good(good.size, false_reject_rate),
        _too_few_defects(defects.size, miss_rate),
    )
    calibration = Calibration(
        good_images=good.size,
        false_reject_rate=false_reject_rate,
        review_rate=float((good >= thresholds.accept).mean()),
        false_reject_bound=rate_bound(_passing(false_reject_rate, good.size), good.size),
        defective_images=defects.size,
        miss_rate=miss_rate,
        miss_bound=rate_bound(_allowed(miss_rate, defects.size), defects.size),
        warning="; ".join(w for w in warnings if w) or None,
    )
    return thresholds, calibration


def threshold_for(scores: Scores, rate: float) -> float:
    """Find the threshold that the next good image reaches with a probability of `rate`.

    Of n scores and the next one each is as likely to be any of the n + 1 in
    order, so it passes the k-th highest with probability k / (n + 1), whatever
    the scores are like: the threshold lies just above the last of them for
    which that is at most `rate`. (Vovk et al., 2005: split conformal prediction.)

    Where even the highest is passed too often, it is extrapolated from the
    highest fifth of the scores, whose excesses are taken to fall off
    exponentially on the logit's scale: lighter tails are passed more seldom than
    asked. Fewer than MIN_FOR_TAIL scores are not: the threshold is above the
    highest. Measured in docs/decisions/0034. Raises `CalibrationError`.
    """
    _check_rate("rate", rate)
    descending = np.sort(_checked(scores, "good"))[::-1]
    # Just above the highest score that must stay below it; float32, as scores are.
    highest = np.float32(descending[_passing(rate, descending.size)])
    threshold = float(np.nextafter(highest, np.float32(np.inf)))
    if _reachable(rate, descending.size) or descending.size < MIN_FOR_TAIL:
        return threshold
    return max(threshold, float(np.float32(_beyond(descending, rate))))


def _beyond(descending: NDArray[np.float64], rate: float) -> float:
    """Extrapolate the score that the next image passes with probability `rate`.

    Of n + 1 images k + 1 reach the (k + 1)-th highest score u, and beyond it, with the
    mean excess b of k of them,

        P(excess > x) = (1 + x / (k b)) ** -k

    which is exact if excesses are exponential: the quotient of the two is F(2, 2k).
    """
    logits = np.log(np.clip(descending, _EDGE, 1 - _EDGE))
    logits -= np.log1p(-np.clip(descending, _EDGE, 1 - _EDGE))
    count = logits.size
    k = max(3, count // 5)
    start = logits[k]
    mean_excess = float((logits[:k] - start).mean())
    reach = ((k + 1) / (rate * (count + 1))) ** (1 / k) - 1
    return float(1 / (1 + math.exp(-(start + k * mean_excess * reach))))


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


def rate_bound(passed: int, count: int, confidence: float = CONFIDENCE) -> float:
    """Bound the true rate behind a threshold that `passed` of `count` images passed.

    Clopper and Pearson (1934): the rate at which so few or fewer would pass
    with probability 1 - confidence; exact for a quantile of the same images too.
    """
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


def _passing(rate: float, count: int) -> int:
    """How many of `count` good images pass the threshold that holds the rate for the next one."""
    return max(0, _share(rate, count + 1) - 1)


def _reachable(rate: float, count: int) -> bool:
    """Whether so many images can promise the rate at all: the highest is passed by 1 in n + 1."""
    return _share(rate, count + 1) >= 1


def _share(rate: float, count: int) -> int:
    return math.floor(rate * count + 1e-9)  # 0.29 * 100 is 28.999... in floats


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


def _too_few_good(count: int, rate: float) -> str | None:
    """Say what `count` good images can promise, if the rate is beyond the highest of them."""
    if _reachable(rate, count):
        return None
    beyond = ", and the threshold is extrapolated" if count >= MIN_FOR_TAIL else ""
    return _too_few(count, rate, "good", "a false-reject rate", rate_bound(0, count), beyond)


def _too_few_defects(count: int, rate: float) -> str | None:
    """Say what `count` defective images can promise, if not even one of them may pass."""
    if _allowed(rate, count) >= 1:
        return None
    return _too_few(count, rate, "defective", "a miss rate", rate_bound(0, count), "")


def _too_few(count: int, rate: float, state: str, what: str, bound: float, beyond: str) -> str:
    return (
        f"{count} {state} images are too few to set {what} of {rate:.2%}: the true rate "
        f"may be up to {bound:.1%} ({CONFIDENCE:.0%} confidence){beyond}; use at least "
        f"{math.ceil(1 / rate)}"
    )
