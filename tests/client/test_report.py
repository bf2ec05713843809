from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.cli import main
from diffusionad_client.pages import histogram
from diffusionad_client.report import selection
from diffusionad_client.scoring.row import Row


def row(number: int, score: float | None) -> Row:
    verdict = Thresholds(0.3, 0.6).verdict(float("nan") if score is None else score)
    return Row(
        image=f"{number:05}.png",
        score=score,
        verdict=verdict.value,
        accept=0.3,
        reject=0.6,
        version="1",
        release="a",
    )


def test_the_images_shown_are_bounded_and_hold_the_highest_scores() -> None:
    scores = [(number * 7919 % 5000) / 5000 for number in range(5000)]
    view = selection.overview(row(number, score) for number, score in enumerate(scores))
    assert view.scored == 5000
    assert len(view.shown) <= selection.MAX_SHOWN
    shown = [shown.score for shown in view.shown]
    assert shown[: selection.HIGHEST] == sorted(scores, reverse=True)[: selection.HIGHEST]
    assert shown == sorted(shown, key=lambda score: -(score or 0))


def test_every_verdict_is_shown_however_rare() -> None:
    rows = [row(number, 0.9) for number in range(1000)] + [row(1000, 0.4), row(1001, 0.1)]
    shown = [shown.verdict for shown in selection.overview(rows).shown]
    assert {"REVIEW", "OK"} <= set(shown)


def test_the_choice_is_the_same_every_time() -> None:
    rows = [row(number, number % 100 / 100) for number in range(2000)]
    assert selection.overview(rows).shown == selection.overview(rows).shown


def test_all_images_of_a_small_run_are_shown() -> None:
    rows = [row(number, number / 50) for number in range(50)]
    assert len(selection.overview(rows).shown) == 50


def test_a_score_that_is_not_a_number_is_shown_first() -> None:
    view = selection.overview([row(0, 0.9), row(1, None)])
    assert view.shown[0].score is None
    assert view.counts["REVIEW"] == 1


def test_failures_are_counted_and_a_bounded_number_is_listed() -> None:
    failures = [Row.failed(f"{n}.png", ValueError("bad")) for n in range(500)]
    view = selection.overview(failures)
    assert view.failed == 500
    assert len(view.failures) == selection.MAX_FAILURES


@pytest.mark.parametrize("highest", [1e-4, 0.03, 0.5, 0.99, 1.0])
def test_the_histogram_holds_every_image_and_both_thresholds(highest: float) -> None:
    scores = {verdict.value: [highest * n / 100 for n in range(101)] for verdict in Verdict}
    chart = histogram.histogram(scores, Thresholds(0.2 * highest, 0.7 * highest))
    assert sum(int(bar.label.split()[0]) for bar in chart.stack.bars) == 303
    assert 0 < chart.accept.at < chart.reject.at <= histogram.WIDTH
    assert all(0 <= bar.x <= histogram.WIDTH - bar.width for bar in chart.stack.bars)
    assert 4 <= len(chart.stack.ticks) <= 12
    assert chart.stack.ticks[-1].at == pytest.approx(histogram.WIDTH)


def test_one_image_among_a_million_still_has_a_bar_that_can_be_seen() -> None:
    chart = histogram.histogram(
        {"OK": [0.1] * 1_000_000, "REVIEW": [], "NG": [0.9]}, Thresholds(0.3, 0.6)
    )
    (rare,) = (bar for bar in chart.stack.bars if bar.group == "NG")
    assert rare.height >= 2


@pytest.fixture
def results(triton: Any, tmp_path: Path, save_image: Callable[..., Path]) -> Path:
    for number in range(6):
        save_image(tmp_path / "parts" / f"<b>{number}.png", number * 50, size=(300, 200))
    (tmp_path / "parts" / "bad.png").write_text("no image")
    arguments = [str(tmp_path / "parts"), "--url", triton.url, "--output", str(tmp_path / "out")]
    assert CliRunner().invoke(main, ["score", *arguments]).exit_code == 3
    return tmp_path / "out"


def test_the_report_holds_its_pictures_and_asks_for_nothing_else(results: Path) -> None:
    page = (results / "report.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 18
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "http" not in page.replace("http-equiv", "")


def test_the_report_tells_model_release_thresholds_counts_and_failures(results: Path) -> None:
    page = (results / "report.html").read_text()
    for text in ("screw", "a" * 64, "0.3000", "0.6000", "accept below 0.3", "reject from 0.6"):
        assert text in page
    assert "bad.png" in page
    assert "not an image that can be read" in page
    assert "Showing all 6 scored images" in page


def test_the_report_names_the_region_that_was_inspected_where_there_is_one(
    results: Path,
) -> None:
    assert "region of interest" not in (results / "report.html").read_text()
    lines = (results / "results.jsonl").read_text().replace('"roi": null', f'"roi": "{"e" * 64}"')
    (results / "results.jsonl").write_text(lines)
    assert CliRunner().invoke(main, ["report", str(results)]).exit_code == 0
    page = (results / "report.html").read_text()
    assert f"region of interest <code>{'e' * 12}</code>" in page


def test_names_of_files_cannot_put_markup_into_the_report(results: Path) -> None:
    page = (results / "report.html").read_text()
    assert "<b>0.png" not in page
    assert "&lt;b&gt;0.png" in page


def test_the_report_command_makes_the_same_report_again(results: Path) -> None:
    before = (results / "report.html").read_bytes()
    (results / "report.html").unlink()
    done = CliRunner().invoke(main, ["report", str(results)])
    assert done.exit_code == 0
    assert done.stdout.strip() == str(results / "report.html")
    assert (results / "report.html").read_bytes() == before


def test_images_that_were_moved_are_found_where_the_user_says(results: Path) -> None:
    before = (results / "report.html").read_bytes()
    (results.parent / "parts").rename(results.parent / "archive")
    CliRunner().invoke(main, ["report", str(results)])
    assert "image is no longer there" in (results / "report.html").read_text()
    CliRunner().invoke(main, ["report", str(results), "--images", str(results.parent / "archive")])
    assert (results / "report.html").read_bytes() == before


def test_a_folder_without_results_is_an_error_that_says_what_writes_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert done.exit_code == 1
    assert "diffusionad score" in done.stderr


def test_a_line_that_is_no_result_is_named(results: Path) -> None:
    lines = (results / "results.jsonl").read_text().splitlines()
    lines[2] = json.dumps({"image": "a.png"})
    (results / "results.jsonl").write_text("\n".join(lines))
    done = CliRunner().invoke(main, ["report", str(results)])
    assert done.exit_code == 1
    assert "results.jsonl, line 3" in done.stderr
