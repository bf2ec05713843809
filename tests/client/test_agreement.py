from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusionad_client.artifacts import agreement, rank_statistics
from diffusionad_client.artifacts.bundle import AgreementSet
from diffusionad_client.artifacts.metadata import Agreement, Thresholds

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=30)
GOOD_AND_BAD = (0.1, 0.2, 0.3, 0.8, 0.9, 1.0)


def expected(scores: tuple[float, ...] = GOOD_AND_BAD) -> AgreementSet:
    """Six images, the last three anomalous, with thresholds of 0.4 and 0.7."""
    return AgreementSet(
        images=np.zeros((6, 8, 8, 3), np.uint8),
        anomalous=np.arange(6) >= 3,
        scores=np.array(scores, np.float32),
        thresholds=Thresholds(accept=0.4, reject=0.7),
    )


def measure(*scores: float, thresholds: Thresholds | None = None) -> Agreement:
    return agreement.measure(expected(), scores, thresholds or Thresholds(accept=0.4, reject=0.7))


def test_the_same_scores_agree() -> None:
    same = measure(*GOOD_AND_BAD)
    assert same == Agreement(
        images=6, anomalous=3, spearman=pytest.approx(1), verdict_flips=0, auroc_loss=0
    )
    assert agreement.is_within_limits(same)


def test_scores_and_thresholds_that_move_together_agree() -> None:
    halved = measure(
        *(score / 2 for score in GOOD_AND_BAD), thresholds=Thresholds(accept=0.2, reject=0.35)
    )
    assert agreement.is_within_limits(halved)


def test_each_precision_is_judged_by_its_own_thresholds() -> None:
    halved = measure(*(score / 2 for score in GOOD_AND_BAD))
    assert halved.verdict_flips == 0.5
    assert not agreement.is_within_limits(halved)


def test_a_defect_that_falls_below_good_parts_costs_auroc() -> None:
    assert measure(0.1, 0.2, 0.3, 0.05, 0.9, 1.0).auroc_loss == pytest.approx(1 / 3)


def test_a_better_auroc_is_no_loss() -> None:
    muddled = expected((0.1, 0.2, 0.85, 0.8, 0.9, 1.0))
    better = agreement.measure(muddled, GOOD_AND_BAD, muddled.thresholds)
    assert better.auroc_loss < 0


@pytest.mark.parametrize("figure", ["spearman", "verdict_flips", "auroc_loss"])
@pytest.mark.parametrize("value", [math.nan, 0.5])
def test_every_figure_out_of_its_limit_counts(figure: str, value: float) -> None:
    figures: dict[str, Any] = {"spearman": 1.0, "verdict_flips": 0.0, "auroc_loss": 0.0}
    measured = Agreement(images=6, anomalous=3, **figures | {figure: value})
    assert not agreement.is_within_limits(measured)


def test_the_limits_themselves_are_within() -> None:
    at_the_limits = Agreement(
        images=100, anomalous=50, spearman=0.99, verdict_flips=0.01, auroc_loss=0.005
    )
    assert agreement.is_within_limits(at_the_limits)


def test_the_description_names_each_figure_and_its_limit() -> None:
    text = agreement.describe(
        Agreement(images=6, anomalous=3, spearman=0.5, verdict_flips=0.25, auroc_loss=0.125)
    )
    for part in ("0.5000 (at least 0.99)", "25.0% (at most 1%)", "12.50 points (at most 0.5)"):
        assert part in text


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    np.testing.assert_array_equal(rank_statistics.ranks([3, 1, 3, 2]), [3.5, 1, 3.5, 2])


@given(SCORES)
def test_ranks_add_up_whatever_the_ties(scores: list[float]) -> None:
    count = len(scores)
    assert rank_statistics.ranks(scores).sum() == count * (count + 1) / 2


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=30, unique=True))
def test_spearman_sees_the_order_alone(values: list[int]) -> None:
    assert agreement.spearman(values, [value**3 for value in values]) == pytest.approx(1)
    assert agreement.spearman(values, [-value for value in values]) == pytest.approx(-1)


def test_a_constant_has_no_correlation() -> None:
    assert math.isnan(agreement.spearman([1, 2, 3], [5, 5, 5]))


def test_auroc_counts_ties_as_half() -> None:
    anomalous = np.array([False, False, True, True])
    assert agreement.auroc([1, 2, 2, 3], anomalous) == 3.5 / 4
    assert agreement.auroc([1, 1, 1, 1], anomalous) == 0.5


def test_auroc_of_one_class_is_not_a_number() -> None:
    assert math.isnan(agreement.auroc([1, 2], np.array([True, True])))
