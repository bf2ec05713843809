"""Two releases on the same images: the numbers, the page, and what goes wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from diffusionad_client import Connection
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.artifacts.rank_statistics import auroc, spearman
from diffusionad_client.comparison import page, scatter
from diffusionad_client.comparison.pairing import Comparison, Points, compare_results
from diffusionad_client.comparison.run import check_output, compare_models, document
from diffusionad_client.errors import (
    AccessDeniedError,
    ContractError,
    ModelNotFoundError,
    OutputError,
    ReportError,
)
from diffusionad_client.output_folders import claimed
from diffusionad_client.scoring.listener import Listener
from diffusionad_client.scoring.results import RESULTS, RunSummary
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.scoring.sinks import FolderSink
from diffusionad_client.scoring.sources import find_images
from diffusionad_client.testing import Refusal

scores = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=2, max_size=40)


@given(st.data())
def test_the_spearman_correlation_is_scipys(data: st.DataObject) -> None:
    first = data.draw(scores)
    second = data.draw(st.lists(st.sampled_from(first), min_size=len(first), max_size=len(first)))
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(scipy.stats.spearmanr(first, second).statistic)


@given(scores, scores)
def test_auroc_is_the_chance_that_a_bad_part_scores_above_a_good_one(
    good: list[float], bad: list[float]
) -> None:
    wins = [(b > g) + (b == g) / 2 for g in good for b in bad]
    assert auroc(good, bad) == pytest.approx(np.mean(wins))


def test_there_is_no_correlation_and_no_auroc_of_nothing() -> None:
    assert spearman([], []) is None
    assert auroc([], [0.5]) is None


def test_the_scatter_draws_every_change_and_a_bounded_choice_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scatter, "MAX_POINTS", 10)
    points = Points()
    for i in range(50):
        points.base.append(i / 100)
        points.candidate.append(i / 100)
        points.verdict.append("NG" if i in (3, 40, 41) else "")
    thresholds = Thresholds(0.2, 0.4)
    drawn = scatter.scatter(points, thresholds, thresholds)
    assert len(drawn.points) == 10
    assert [point.verdict for point in drawn.points] == [""] * 7 + ["NG"] * 3  # on top
    assert drawn.left_out == 40
    assert drawn == scatter.scatter(points, thresholds, thresholds)
    ng = drawn.points[-1]
    assert ng.x == pytest.approx(scatter.SIDE - ng.y)  # equal scores lie on the diagonal


def write_results(folder: Path, model: str, rows: Sequence[Row]) -> Path:
    with claimed(folder, RESULTS) as output, FolderSink(output) as writer:
        for row in rows:
            writer.write(row)
        summary = RunSummary(
            model=model,
            server="triton:8001",
            root=str(folder),
            started="2026-01-02T03:04:05+00:00",
            seconds=2.0,
            images=len(rows),
            failed=sum(row.verdict is None for row in rows),
            verdicts={},
        )
        writer.finish(summary)
    return folder


def row(image: str, score: float | None, verdict: str, accept: float = 0.3) -> Row:
    return Row(
        image=image,
        score=score,
        verdict=verdict,
        accept=accept,
        reject=0.6,
        version="1",
        release="abc",
    )


@pytest.fixture
def compared(tmp_path: Path) -> Comparison:
    base = [
        row("good/0.png", 0.1, "OK"),
        row("good/1.png", 0.2, "OK"),
        row("scratch/0.png", 0.4, "REVIEW"),
        row("scratch/1.png", 0.7, "NG"),
        row("scratch/2.png", None, "REVIEW"),
        Row.failed("scratch/3.png", ValueError("torn")),
        row("scratch/4.png", 0.9, "NG"),
    ]
    candidate = [
        row("good/0.png", 0.15, "OK"),
        row("good/1.png", 0.45, "REVIEW"),
        row("scratch/0.png", 0.65, "NG"),
        row("scratch/1.png", 0.2, "OK"),
        row("scratch/2.png", 0.4, "REVIEW"),
        row("scratch/3.png", 0.8, "NG"),
        row("scratch/4.png", 0.95, "NG"),
    ]
    return compare_results(
        write_results(tmp_path / "base", "screw", base),
        write_results(tmp_path / "candidate", "screw-candidate", candidate),
    )


def test_changes_are_sorted_by_how_far_the_verdict_moved(compared: Comparison) -> None:
    moved = [(p.image, p.base.verdict, p.candidate.verdict) for p in compared.changes]
    assert moved == [
        ("scratch/1.png", "NG", "OK"),
        ("good/1.png", "OK", "REVIEW"),
        ("scratch/0.png", "REVIEW", "NG"),
    ]


def test_what_one_of_them_could_not_score_is_listed_and_counted_nowhere_else(
    compared: Comparison,
) -> None:
    assert [(p.image, p.base.error_message) for p in compared.failures] == [
        ("scratch/3.png", "torn")
    ]
    assert compared.images == 7
    assert compared.compared == sum(compared.transitions.values()) == 6


def test_a_score_that_is_no_number_has_a_verdict_but_no_point(compared: Comparison) -> None:
    assert len(compared.points.base) == 5
    assert compared.transitions["REVIEW", "REVIEW"] == 1


def test_each_folder_is_counted_by_itself(compared: Comparison) -> None:
    scratch = compared.classes["scratch"]
    assert (scratch.images, scratch.failed, scratch.changed) == (5, 1, 2)
    assert dict(scratch.base) == {"REVIEW": 2, "NG": 2}
    assert dict(scratch.candidate) == {"NG": 2, "OK": 1, "REVIEW": 1}


def test_good_folders_are_held_against_the_others(compared: Comparison) -> None:
    assert compared.base.auroc == 1.0
    assert compared.candidate.auroc == pytest.approx(5 / 6)
    assert compared.classes["scratch"].candidate_auroc == pytest.approx(5 / 6)
    assert compared.classes["good"].base_auroc is None


def test_the_correlation_is_that_of_the_numbers_both_gave(compared: Comparison) -> None:
    pairs = np.array([(0.1, 0.15), (0.2, 0.45), (0.4, 0.65), (0.7, 0.2), (0.9, 0.95)])
    assert compared.spearman == pytest.approx(scipy.stats.spearmanr(*pairs.T).statistic)


def test_the_document_is_json_and_lists_every_change_and_failure(compared: Comparison) -> None:
    read = json.loads(json.dumps(document(compared), allow_nan=False))
    assert (read["images"], read["compared"], read["failed"], read["changed"]) == (7, 6, 1, 3)
    assert len(read["changes"]) == 3
    assert read["failures"] == [{"image": "scratch/3.png", "base": "torn", "candidate": None}]
    assert {"base": "NG", "candidate": "OK", "images": 1} in read["transitions"]


def test_a_page_of_many_changes_shows_a_bounded_number(
    compared: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_CHANGES", 2)
    page.write_page(compared, tmp_path / "compare.html")
    text = (tmp_path / "compare.html").read_text()
    assert "The 2 most severe of 3; all are in compare.json." in text
    assert text.count('class="card change"') == 2


def test_results_of_other_images_cannot_be_compared(tmp_path: Path) -> None:
    one = write_results(tmp_path / "one", "a", [row("1.png", 0.1, "OK")])
    other = write_results(tmp_path / "other", "b", [row("2.png", 0.1, "OK")])
    more = write_results(tmp_path / "more", "c", [row("1.png", 0.1, "OK"), row("2.png", 0.1, "OK")])
    for second in (other, more):
        with pytest.raises(ReportError, match="not of the same images"):
            compare_results(one, second)


def quietly(images: int, title: str) -> Any:
    return nullcontext(Listener())


def test_two_categories_of_a_server_are_compared_over_a_folder(
    triton: Any, make_category: Any, save_image: Callable[..., Path], tmp_path: Path
) -> None:
    strict = make_category("screw-candidate", release="b" * 64, thresholds=Thresholds(0.1, 0.2))
    triton.serve(strict)
    save_image(tmp_path / "test/good/0.png", red=0)
    save_image(tmp_path / "test/<scratch>/0.png", red=64)  # 0.25: OK, and NG for the candidate
    (tmp_path / "test/<scratch>/torn.png").write_bytes(b"no image")
    found = find_images([str(tmp_path / "test")])
    output = tmp_path / "compared"

    result = compare_models(
        Connection(triton.url), "screw", "screw-candidate", found, Settings(output=output), quietly
    )

    assert result.transitions == {("OK", "OK"): 1, ("OK", "NG"): 1}
    assert [pair.image for pair in result.failures] == ["<scratch>/torn.png"]
    text = (output / "compare.html").read_text()
    assert "<scratch>" not in text  # a file's name is text, never markup
    assert "&lt;scratch&gt;/0.png" in text
    assert text.count("data:image/jpeg;base64,") == 3  # the changed image and two heat maps
    assert "http" not in text.replace("http-equiv", "")  # asks for nothing
    assert json.loads((output / "compare.json").read_text())["changed"] == 1
    assert (output / "base/results.csv").exists()
    assert (output / "candidate/results.csv").exists()


def test_a_category_that_is_not_served_is_named_before_anything_is_written(
    triton: Any, save_image: Callable[..., Path], tmp_path: Path
) -> None:
    save_image(tmp_path / "images/0.png")
    found = find_images([str(tmp_path / "images")])
    settings = Settings(output=tmp_path / "compared")
    with pytest.raises(ModelNotFoundError, match="'screw-candidate'"):
        compare_models(Connection(triton.url), "screw", "screw-candidate", found, settings, quietly)
    with pytest.raises(ContractError, match="cannot be compared with itself"):
        compare_models(Connection(triton.url), "screw", "screw", found, settings, quietly)
    assert not (tmp_path / "compared").exists()


def test_an_earlier_comparison_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text("{}")
    with pytest.raises(OutputError, match="--overwrite"):
        check_output(tmp_path, overwrite=False)
    check_output(tmp_path, overwrite=True)
    check_output(tmp_path / "new", overwrite=False)


def test_an_earlier_comparison_stays_when_the_one_that_replaces_it_fails(
    triton: Any, make_category: Any, save_image: Callable[..., Path], tmp_path: Path
) -> None:
    triton.serve(make_category("screw-candidate", release="b" * 64))
    save_image(tmp_path / "images/0.png")
    images = find_images([str(tmp_path / "images")])
    settings = Settings(output=tmp_path / "compared", overwrite=True)
    both = (Connection(triton.url), "screw", "screw-candidate", images, settings, quietly)
    compare_models(*both)
    before = {path: path.read_bytes() for path in settings.output.rglob("*.*") if path.is_file()}
    triton.fail(Refusal(grpc.StatusCode.PERMISSION_DENIED, "no"))
    with pytest.raises(AccessDeniedError):
        compare_models(*both)
    assert {path: path.read_bytes() for path in before} == before
    triton.heal()
    compare_models(*both)
    assert not list(settings.output.rglob("*.part"))


def test_a_shift_of_no_number_is_none(compared: Comparison) -> None:
    assert all(math.isfinite(pair.shift) for pair in compared.changes)
