"""Drift: the statistics against scipy's, the judgements, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import stats

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.cli import main
from diffusionad_client.drift import statistics
from diffusionad_client.drift.compare import Drift, compare
from diffusionad_client.drift.meaning import Asked
from diffusionad_client.drift.shifts import LIMIT, Status
from diffusionad_client.scoring.gathered import gather
from diffusionad_client.scoring.row import Row

Scores = Sequence[float] | np.ndarray[Any, Any]


def rows(scores: Scores, folder: str = "good", **others: Any) -> list[Row]:
    accept, reject = others.pop("accept", 0.3), others.pop("reject", 0.6)
    judge = Thresholds(accept, reject).verdict
    about = {"accept": accept, "reject": reject, "version": "1", "release": "a" * 64} | others
    return [
        Row(image=f"{folder}/{n}.png", score=float(score), verdict=judge(score).value, **about)
        for n, score in enumerate(scores)
    ]


def drawn(count: int, mean: float = 0.2, seed: int = 0) -> np.ndarray[Any, Any]:
    scores: np.ndarray[Any, Any] = np.random.default_rng(seed).normal(mean, 0.05, count)
    return scores.clip(0, 1)


def drift(before: list[Row], now: list[Row], **options: Any) -> Drift:
    return compare(gather(before), gather(now), **options)


# The statistics


@given(st.integers(0, 2**32 - 1), st.integers(40, 400), st.integers(40, 400))
@examples(max_examples=20)
def test_the_index_is_the_divergence_of_scipys_entropy_both_ways(seed: int, n: int, m: int) -> None:
    draw = np.random.default_rng(seed)
    before, now = draw.beta(2, 5, n), draw.beta(2, 4, m)
    edges = statistics.bin_edges(before, m)
    bins = [-np.inf, *edges, np.inf]
    p, q = (np.histogram(scores, bins)[0] + 0.5 for scores in (before, now))
    expected = stats.entropy(p, q) + stats.entropy(q, p)
    assert statistics.psi(before, now, edges) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(20, 300), st.integers(20, 300), st.floats(0, 0.5))
@examples(max_examples=25)
def test_distance_and_probability_of_kolmogorov_and_smirnov_are_scipys(
    seed: int, n: int, m: int, shift: float
) -> None:
    draw = np.random.default_rng(seed)
    first, second = draw.normal(0, 1, n).round(1), draw.normal(shift, 1, m).round(1)  # with ties
    distance, p = statistics.kolmogorov_smirnov(first, second)
    expected = stats.ks_2samp(first, second, method="asymp")
    assert distance == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, abs=0.02, rel=0.2)


@pytest.mark.parametrize("freedom", [2, 5, 9, 20])
@pytest.mark.parametrize(("probability", "within"), [(0.9, 0.011), (0.99, 0.01), (0.9999, 0.05)])
def test_the_quantiles_of_chi_squared_are_scipys(
    freedom: int, probability: float, within: float
) -> None:
    found = statistics.chi_squared_quantile(probability, freedom)
    assert found == pytest.approx(stats.chi2.ppf(probability, freedom), rel=within)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
@examples(max_examples=25)
def test_the_test_of_two_rates_is_scipys_exact_one(of: int, other: int, data: Any) -> None:
    hits, other_hits = data.draw(st.integers(0, of)), data.draw(st.integers(0, other))
    table = [[hits, of - hits], [other_hits, other - other_hits]]
    found = statistics.same_rate(hits, of, other_hits, other)
    assert found == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("hits", "of"), [(0, 10), (1, 50), (30, 60), (60, 60)])
def test_the_interval_of_a_rate_is_scipys_wilson_interval(hits: int, of: int) -> None:
    expected = stats.binomtest(hits, of).proportion_ci(0.95, method="wilson")
    found = statistics.rate_interval(hits, of)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_chance_seldom_exceeds_what_it_is_said_to_stay_below() -> None:
    draw = np.random.default_rng(1)
    exceeded = 0
    for _ in range(400):
        before, now = draw.normal(size=600), draw.normal(size=250)
        edges = statistics.bin_edges(before, len(now))
        chance = statistics.psi_of_chance(edges, 600, 250, 0.05)
        exceeded += statistics.psi(before, now, edges) > chance
    assert 0.02 < exceeded / 400 < 0.09  # 0.05 was asked for


@pytest.mark.parametrize("moved_to", [0.05, 0.4])
def test_a_baseline_of_one_score_alone_is_left_in_either_direction(moved_to: float) -> None:
    before = np.full(200, 0.2)
    edges = statistics.bin_edges(before, 200)
    assert statistics.psi(before, before, edges) == 0
    assert statistics.psi(before, np.full(200, moved_to), edges) > 1


# The judgement


def test_the_same_population_is_stable_and_its_thresholds_mean_what_they_did() -> None:
    found = drift(rows(drawn(3000)), rows(drawn(2000, seed=1)))
    assert found.status is Status.STABLE
    assert {meaning.status for meaning in found.meanings} == {Status.STABLE}
    assert "still means that" in found.meanings[0].sentence


def test_a_population_that_moved_has_drifted_and_so_has_what_a_threshold_means() -> None:
    found = drift(rows(drawn(3000)), rows(drawn(2000, mean=0.26, seed=1)))
    assert found.status is Status.DRIFTED
    assert found.overall.psi is not None
    assert found.overall.psi > LIMIT
    accept = found.meanings[1]
    assert accept.status is Status.DRIFTED
    assert "no longer means that, it turns away more" in accept.sentence
    assert accept.hits == int((drawn(2000, mean=0.26, seed=1) >= 0.3).sum())


@pytest.mark.parametrize("count", [0, 5, 29])
def test_a_handful_of_images_is_too_few_to_tell_anything_however_far_they_moved(
    count: int,
) -> None:
    found = drift(rows(drawn(3000)), rows(drawn(count, mean=0.9)))
    assert found.status is Status.UNKNOWN
    assert found.overall.psi is None
    assert "Too little is known" in found.sentence


def test_few_images_that_did_not_move_are_not_called_stable() -> None:
    found = drift(rows(drawn(40)), rows(drawn(40, seed=1)))
    assert found.status is Status.UNKNOWN
    assert "chance alone" in found.sentence


def test_few_images_that_moved_far_are_known_to_have_drifted() -> None:
    assert drift(rows(drawn(60)), rows(drawn(60, mean=0.6))).status is Status.DRIFTED


def test_a_run_that_drifts_towards_its_end_is_found_by_its_stretches_of_time() -> None:
    now = [*drawn(2200, seed=1), *drawn(200, mean=0.3, seed=2)]
    found = drift(rows(drawn(3000)), rows(now))
    assert found.overall.status is Status.STABLE
    assert [shift.status for shift in found.over_time] == [Status.STABLE] * 11 + [Status.DRIFTED]
    assert found.status is Status.DRIFTED
    assert "images 2,201 to 2,400" in found.sentence


def test_stretches_follow_the_time_of_the_images_where_it_is_known() -> None:
    now = rows(drawn(400, seed=1))
    stamped = [
        replace(row, scored_at=f"2026-11-28T{20 - n // 60:02}:{59 - n % 60:02}:00Z")
        for n, row in enumerate(now)
    ]
    found = drift(rows(drawn(3000)), stamped)
    assert found.over_time[0].name == "2026-11-28 14:20 to 15:59 UTC"
    assert found.over_time[-1].name.endswith("20:59 UTC")


def test_each_lot_is_judged_and_held_against_its_own_past_where_it_has_one() -> None:
    line1, line2 = {"line": "1", "lot": "a"}, {"line": "2", "lot": "b"}
    before = [*rows(drawn(900), fields=line1), *rows(drawn(900, mean=0.4), fields=line2)]
    now = [
        *rows(drawn(900, seed=1), fields=line1),
        *rows(drawn(900, mean=0.4, seed=2), fields={"line": "2", "lot": "c"}),
    ]
    found = drift(before, now)
    lines = {shift.name: shift for shift in found.fields["line"]}
    assert {name: shift.status for name, shift in lines.items()} == {
        "1": Status.STABLE,
        "2": Status.STABLE,
    }
    lots = {shift.name: shift for shift in found.fields["lot"]}
    assert lots["c"].baseline == 1800  # of all: the baseline has no such lot
    assert lots["c"].status is Status.DRIFTED


def test_only_good_parts_count_where_folders_tell_them() -> None:
    before = [*rows(drawn(1000)), *rows(drawn(20, mean=0.8), folder="dent")]
    now = [*rows(drawn(1000, seed=1)), *rows(drawn(800, mean=0.8), folder="dent")]
    found = drift(before, now)
    assert found.parts == "good parts"
    assert found.status is Status.STABLE
    unlabelled = drift(rows(drawn(1000), folder="x"), rows(drawn(1000, seed=1), folder="x"))
    assert any("No folder called good" in note for note in unlabelled.notes)


def test_other_releases_and_thresholds_are_named() -> None:
    now = rows(drawn(1000, seed=1), release="b" * 64, reject=0.5)
    notes = " ".join(drift(rows(drawn(1000)), now).notes)
    assert "aaaaaaaaaaaa and bbbbbbbbbbbb" in notes
    assert "0.3 and 0.6" in notes
    assert "0.3 and 0.5" in notes


@pytest.mark.parametrize(
    ("hits", "of", "status"),
    [
        (10, 1000, Status.STABLE),
        (40, 1000, Status.DRIFTED),
        (1, 1000, Status.DRIFTED),  # turns away a tenth of what it was to: no longer means that
        (0, 40, Status.UNKNOWN),
        (1, 40, Status.UNKNOWN),
    ],
)
def test_a_threshold_is_held_against_the_rate_it_was_calibrated_to(
    hits: int, of: int, status: Status
) -> None:
    now = [0.9] * hits + [0.1] * (of - hits)
    found = drift(rows(drawn(500)), rows(now), asked=Asked(false_reject_rate=0.01))
    assert found.meanings[0].status is status
    assert "was calibrated to 1.00%" in found.meanings[0].sentence


def test_rates_of_a_release_are_held_against_good_parts_alone() -> None:
    now = [0.9] * 40 + [0.1] * 960
    promised = Asked(false_reject_rate=0.01)
    for folder, asked in (("good", 0.01), ("line", None)):
        found = drift(rows(drawn(500), folder), rows(now, folder), calibrated_to=promised)
        assert found.meanings[0].asked == asked
    found = drift(
        rows(drawn(500)),
        rows(now),
        asked=Asked(false_reject_rate=0.05),
        calibrated_to=Asked(false_reject_rate=0.01, review_rate=0.02),
    )
    assert [meaning.asked for meaning in found.meanings] == [0.05, 0.02]


# The command

Write = Callable[[str, list[Row]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_results(name: str, of: list[Row]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        lines = (json.dumps(row.to_document()) + "\n" for row in of)
        (folder / "results.jsonl").write_text("".join(lines))
        return folder

    return write_results


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["drift", *map(str, arguments)])


def test_the_command_fails_only_above_what_it_was_asked_to(write: Write) -> None:
    before, now = write("before", rows(drawn(900))), write("now", rows(drawn(900, mean=0.27)))
    assert run(before, now).exit_code == 0
    found = run(before, now, "--fail-above", "0.25")
    assert found.exit_code == 10
    assert "Drifted, a PSI above 0.25: all good parts" in found.stdout
    assert run(before, now, "--fail-above", "50").exit_code == 0
    assert run(before, before, "--fail-above", "0.25").exit_code == 0


def test_the_command_s_json_holds_all_that_was_found(write: Write) -> None:
    before, now = write("before", rows(drawn(900))), write("now", rows(drawn(900, mean=0.27)))
    done = run(before, now, "--by", "folder", "--json")
    document = json.loads(done.stdout)
    assert document["status"] == "drifted"
    assert document["overall"]["psi"] > LIMIT
    assert [shift["name"] for shift in document["fields"]["folder"]] == ["good"]
    assert len(document["over_time"]) == 9
    assert {meaning["threshold"] for meaning in document["meanings"]} == {"accept", "reject"}


def test_runs_of_different_products_are_not_compared(write: Write) -> None:
    before = write("before", rows(drawn(100), model="screw"))
    done = run(before, write("now", rows(drawn(100), model="nut")))
    assert done.exit_code == 1
    assert "the baseline is of screw, this run of nut" in done.stderr


def test_a_field_that_no_image_has_is_an_error_that_names_those_there_are(write: Write) -> None:
    before = write("before", rows(drawn(100), fields={"lot": "a"}))
    done = run(before, before, "--by", "line")
    assert done.exit_code == 1
    assert "'line'" in done.stderr
    assert "lot" in done.stderr


@pytest.mark.parametrize(
    "now", [[], [Row.failed("a.png", ValueError("bad"))]], ids=["empty", "all failed"]
)
def test_a_run_without_scores_is_no_alarm_and_no_crash(write: Write, now: list[Row]) -> None:
    before = write("before", rows(drawn(100)))
    done = run(before, write("now", now), "--fail-above", "0.1")
    assert done.exit_code == 0
    assert "Too little is known" in done.stdout


def test_what_is_no_result_or_of_a_newer_version_is_named(write: Write, tmp_path: Path) -> None:
    before = write("before", rows(drawn(100)))
    (tmp_path / "none").mkdir()
    assert "diffusionad score" in run(before, tmp_path / "none").stderr
    foreign = write("foreign", [])
    (foreign / "results.jsonl").write_text("score,image\n0.1,a.png\n")
    assert "foreign/results.jsonl, line 1" in run(foreign, before).stderr
    newer = json.dumps(rows([0.1])[0].to_document() | {"schema": 99})
    (foreign / "results.jsonl").write_text(newer + "\n")
    done = run(before, foreign)
    assert done.exit_code == 1
    assert "99" in done.stderr
