"""Thresholds from good scores: the rates hold, and too few images are said to be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusionad_client.calibration import CalibrationError, calibrate, threshold_for
from diffusionad_client.metadata import Verdict

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
def test_no_lower_threshold_would_do(scores: list[float], rate: float) -> None:
    threshold = threshold_for(scores, rate)
    lower = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
    assert sum(score >= lower for score in scores) > rate * len(scores) - 1


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
    assert "at least 100" in calibration.warning


@pytest.mark.parametrize("scores", [[], [0.1, float("nan")]])
def test_scores_that_cannot_set_thresholds_are_refused(scores: list[float]) -> None:
    with pytest.raises(CalibrationError, match="thresholds need the scores"):
        calibrate(scores, false_reject_rate=0.01, review_rate=0.05)


@pytest.mark.parametrize(("reject", "review"), [(0, 0.1), (0.1, 0.05), (0.1, 1)])
def test_rates_out_of_range_are_refused(reject: float, review: float) -> None:
    with pytest.raises(CalibrationError, match="need 0 < false_reject_rate"):
        calibrate([0.1], false_reject_rate=reject, review_rate=review)
