"""Thresholds from good scores: the rates hold, and too few images are said to be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from diffusionad_client.artifacts.calibration import (
    CalibrationError,
    calibrate,
    calibrate_with_defects,
    pixel_level,
    rate_bound,
    threshold_for,
    threshold_under,
)
from diffusionad_client.artifacts.metadata import Verdict

score_lists = st.lists(st.floats(min_value=0, max_value=1, width=32), min_size=1, max_size=300)
rates = st.floats(min_value=0.001, max_value=0.5)


@given(score_lists, rates, rates)
def test_the_rates_hold_on_the_scores_given(scores: list[float], a: float, b: float) -> None:
    false_reject_rate, review_rate = sorted((a, b))
    thresholds, _ = calibrate(scores, false_reject_rate=false_reject_rate, review_rate=review_rate)
    verdicts = [thresholds.verdict(score) for score in scores]
    assert verdicts.count(Verdict.NG) <= false_reject_rate * len(scores)
    assert sum(v is not Verdict.OK for v in verdicts) <= review_rate * len(scores)


@given(score_lists, rates)
def test_no_lower_threshold_would_hold_the_rate_for_the_next_image(
    scores: list[float], rate: float
) -> None:
    threshold = threshold_for(scores, rate)
    lower = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
    if rate * (len(scores) + 1) >= 1:  # where the scores can promise the rate
        assert sum(score >= lower for score in scores) + 1 > rate * (len(scores) + 1) - 1e-6
    else:
        assert threshold > max(scores)


@given(score_lists, rates, rates)
def test_a_lower_rate_never_has_a_lower_threshold(scores: list[float], a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert threshold_for(scores, low) >= threshold_for(scores, high)


SHAPES = {  # on the scale of logits
    "normal": stats.norm(-3, 0.8),
    "logistic": stats.logistic(-3, 0.5),
    "exponential": stats.expon(-4, 0.7),
    "gumbel": stats.gumbel_r(-3, 0.6),
}


def rate_seen(shape: str, count: int, rate: float) -> float:
    """Mean true rate over many calibrations on so many good images."""
    drawn = SHAPES[shape].rvs(size=(600, count), random_state=np.random.default_rng(0))
    thresholds = np.array([threshold_for(scores, rate) for scores in 1 / (1 + np.exp(-drawn))])
    assert thresholds.max() <= 1
    beyond = np.where(thresholds < 1, np.log(thresholds / np.maximum(1 - thresholds, 1e-9)), 20)
    return float(SHAPES[shape].sf(beyond).mean())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("count", "rate"), [(20, 0.01), (30, 0.01), (50, 0.01), (12, 0.05)])
def test_with_few_images_the_rate_seen_is_near_the_one_asked_for(
    shape: str, count: int, rate: float
) -> None:
    seen = rate_seen(shape, count, rate)
    assert 0.4 * rate < seen < 1.35 * rate
    assert seen < 0.8 / (count + 1)  # what the highest score alone would give is 1 / (n + 1)


@pytest.mark.parametrize("shape", ["normal", "exponential"])
def test_with_enough_images_the_rate_holds_whatever_the_scores_are_like(shape: str) -> None:
    assert rate_seen(shape, 99, 0.01) == pytest.approx(0.01, rel=0.15)
    assert rate_seen(shape, 30, 0.1) == pytest.approx(3 / 31, rel=0.1)


def test_of_very_few_images_the_threshold_is_just_above_the_highest() -> None:
    assert threshold_for([0.1, 0.3, 0.2], 0.01) == pytest.approx(0.3)


def test_scores_without_spread_have_a_threshold_just_above_them() -> None:
    assert threshold_for([0.25] * 30, 0.01) == pytest.approx(0.25)


def test_enough_images_come_without_a_warning() -> None:
    _, calibration = calibrate(
        list(np.linspace(0, 1, 100)), false_reject_rate=0.01, review_rate=0.05
    )
    assert calibration.warning is None
    assert calibration.good_images == 100


def test_too_few_images_say_what_they_can_promise() -> None:
    _, calibration = calibrate([0.1] * 20, false_reject_rate=0.01, review_rate=0.05)
    assert calibration.warning is not None
    assert "20 good images are too few" in calibration.warning
    assert "13.9%" in calibration.warning  # 1 - 0.05 ** (1 / 20)
    assert "extrapolated; use at least 100" in calibration.warning


@pytest.mark.parametrize("scores", [[], [0.1, float("nan")]])
def test_scores_that_cannot_set_thresholds_are_refused(scores: list[float]) -> None:
    with pytest.raises(CalibrationError, match="thresholds need the scores of good images"):
        calibrate(scores, false_reject_rate=0.01, review_rate=0.05)


@pytest.mark.parametrize(("reject", "review"), [(0, 0.1), (0.1, 0.05), (0.1, 1)])
def test_rates_out_of_range_are_refused(reject: float, review: float) -> None:
    with pytest.raises(CalibrationError, match="need 0 < false_reject_rate"):
        calibrate([0.1], false_reject_rate=reject, review_rate=review)


@given(score_lists, rates)
def test_no_higher_threshold_would_do_for_defects(scores: list[float], rate: float) -> None:
    threshold = threshold_under(scores, rate)
    assert sum(score < threshold for score in scores) <= rate * len(scores)
    higher = float(np.nextafter(np.float32(threshold), np.float32(np.inf)))
    assert sum(score < higher for score in scores) > rate * len(scores) - 1


@given(score_lists, score_lists, rates, rates)
def test_with_defects_both_rates_hold(
    good: list[float], defects: list[float], false_reject_rate: float, miss_rate: float
) -> None:
    thresholds, _ = calibrate_with_defects(
        good, defects, false_reject_rate=false_reject_rate, miss_rate=miss_rate
    )
    rejected = sum(thresholds.verdict(score) is Verdict.NG for score in good)
    missed = sum(thresholds.verdict(score) is Verdict.OK for score in defects)
    assert rejected <= false_reject_rate * len(good)
    assert missed <= miss_rate * len(defects)


def test_between_parts_that_lie_apart_is_review() -> None:
    good, defects = [0.1, 0.2], [0.7, 0.8]
    thresholds, calibration = calibrate_with_defects(
        good, defects, false_reject_rate=0.1, miss_rate=0.1
    )
    assert thresholds.accept == pytest.approx(0.2)
    assert thresholds.reject == pytest.approx(0.7)
    assert thresholds.verdict(0.5) is Verdict.REVIEW
    assert calibration.review_rate == 0


def test_where_good_and_defective_overlap_is_review() -> None:
    good, defects = [0.1, 0.2, 0.6], [0.3, 0.7, 0.8]
    thresholds, _ = calibrate_with_defects(good, defects, false_reject_rate=0.1, miss_rate=0.1)
    assert [str(thresholds.verdict(s)) for s in (0.2, 0.3, 0.6, 0.7)] == [
        *("OK", "REVIEW", "REVIEW", "NG")
    ]


@given(st.integers(1, 2000), rates)
def test_the_bound_is_clopper_and_pearson_s(count: int, rate: float) -> None:
    passed = int(rate * count)
    expected = stats.beta.ppf(0.95, passed + 1, count - passed)
    assert rate_bound(passed, count) == pytest.approx(expected, rel=1e-6)


def test_too_few_defects_are_said_to_be() -> None:
    _, calibration = calibrate_with_defects(
        [0.1] * 200, [0.9] * 10, false_reject_rate=0.01, miss_rate=0.01
    )
    assert calibration.warning is not None
    assert "10 defective images are too few to set a miss rate" in calibration.warning
    assert "good images" not in calibration.warning


def test_the_pixel_level_is_that_of_the_last_pixel_in_the_score() -> None:
    anomaly_map = np.zeros((16, 16), dtype=np.float32)
    anomaly_map.ravel()[:50] = np.linspace(0.5, 1, 50)
    assert pixel_level(anomaly_map) == 0.5


@pytest.mark.parametrize("rate", [0, 1, float("nan"), "0.1", None])
def test_a_rate_that_is_none_is_refused_whoever_asks(rate: object) -> None:
    for threshold in (threshold_for, threshold_under):
        with pytest.raises(CalibrationError, match="must lie between 0 and 1, not"):
            threshold([0.1, 0.2], rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("scores", [[], ["text"], [float("nan")], [None]])
def test_scores_that_are_no_numbers_are_refused_whoever_asks(scores: list[float]) -> None:
    for threshold in (threshold_for, threshold_under):
        with pytest.raises(CalibrationError, match="numbers"):
            threshold(scores, 0.1)
