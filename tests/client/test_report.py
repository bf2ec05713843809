from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.cli import main
from diffusionad_client.pages import histogram
from diffusionad_client.report import document, embedding
from diffusionad_client.report.page import write_report
from diffusionad_client.scoring.gathered import MAX_FAILURES, NAME, gather
from diffusionad_client.scoring.row import Row


def row(number: int, score: float | None, **others: Any) -> Row:
    verdict = Thresholds(0.3, 0.6).verdict(float("nan") if score is None else score)
    values: dict[str, Any] = {
        "image": f"{number:05}.png",
        "score": score,
        "verdict": verdict.value,
        "accept": 0.3,
        "reject": 0.6,
        "version": "1",
        "release": "a",
    }
    return Row(**values | others)


def page_data(page: str, name: str = "run") -> Any:
    """Read what the page's script will read."""
    (text,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', page)
    return json.loads(text)


def numbers(packed: str, kind: str) -> list[float]:
    return np.frombuffer(base64.b64decode(packed), kind).tolist()


def test_the_embedded_images_are_bounded_and_hold_the_highest_scores() -> None:
    scores = [(number * 7919 % 5000) / 5000 for number in range(5000)]
    run = gather(row(number, score) for number, score in enumerate(scores))
    chosen = embedding.choose(run)
    assert len(chosen) <= embedding.MAX_EMBEDDED
    highest = sorted(range(5000), key=lambda place: -scores[place])[: embedding.HIGHEST]
    assert set(highest) <= set(chosen)


def test_every_verdict_is_embedded_however_rare() -> None:
    rows = [row(number, 0.9) for number in range(1000)] + [row(1000, 0.4), row(1001, 0.1)]
    assert {1000, 1001} <= set(embedding.choose(gather(rows)))


def test_the_choice_is_the_same_every_time() -> None:
    run = gather([row(number, number % 100 / 100) for number in range(2000)])
    assert embedding.choose(run) == embedding.choose(run)


def test_the_page_gets_the_very_scores_that_were_judged() -> None:
    scores = [float(np.float32(0.1)), 0.3, None, 1 / 3]
    run = gather(row(number, score) for number, score in enumerate(scores))
    data = document.document(run, images=None, baseline=None)
    given = numbers(data["scores"], "<f8")
    assert [None if math.isnan(score) else score for score in given] == scores
    assert numbers(data["verdicts"], "u1") == [0, 1, 1, 1]
    assert (data["accept"], data["reject"]) == (0.3, 0.6)


def test_columns_with_gaps_keep_every_image_in_its_place() -> None:
    rows = [row(0, 0.1), row(1, 0.1, heatmap="heatmaps/00001.png.jpg"), row(2, 0.1)]
    run = gather(rows)
    assert list(run.heatmaps.codes) == [-1, 0, -1]
    assert list(run.heatmaps.values) == [f"heatmaps/{NAME}.jpg"]


def test_only_the_highest_scores_of_very_many_images_have_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(document, "MAX_NAMED", 3)
    run = gather(row(number, score) for number, score in enumerate([0.5, 0.1, None, 0.9, 0.2]))
    data = document.document(run, images=None, baseline=None)
    assert data["names"] == ["00000.png", None, "00002.png", "00003.png", None]
    assert data["total"] == 5


def test_the_folders_tell_good_parts_from_others_where_one_is_called_good() -> None:
    rows = [row(0, 0.1, image="good/0.png"), row(1, 0.2, image="good/1.png")]
    rows += [row(2, 0.9, image="dent/2.png"), row(3, 0.15, image="dent/3.png")]
    data = document.document(gather(rows), images=None, baseline=None)
    assert data["fields"][0]["values"] == ["good", "dent"]
    assert data["classes"] == {"good": [0], "auroc": [None, 0.75], "overall": 0.75}
    assert document.document(gather(rows[2:]), images=None, baseline=None)["classes"] is None


def test_failures_are_counted_by_kind_and_a_bounded_number_is_listed() -> None:
    failures = [Row.failed(f"{n}.png", ValueError("bad")) for n in range(500)]
    run = gather([*failures, Row.failed("late.png", TimeoutError("late"))])
    assert run.failed == {"ValueError": 500, "TimeoutError": 1}
    assert len(run.failures) == MAX_FAILURES


@pytest.mark.parametrize("highest", [1e-4, 0.03, 0.5, 0.99, 1.0])
def test_the_histogram_holds_every_image_and_both_thresholds(highest: float) -> None:
    scores = {verdict.value: [highest * n / 100 for n in range(101)] for verdict in Verdict}
    stack = histogram.stack_up(scores, 0.7 * highest)
    assert sum(int(bar.label.split()[0]) for bar in stack.bars) == 303
    assert 0 < stack.mark(0.2 * highest).at < stack.mark(0.7 * highest).at <= histogram.WIDTH
    assert all(0 <= bar.x <= histogram.WIDTH - bar.width for bar in stack.bars)
    assert 4 <= len(stack.ticks) <= 12
    assert stack.ticks[-1].at == pytest.approx(histogram.WIDTH)


def test_one_image_among_a_million_still_has_a_bar_that_can_be_seen() -> None:
    stack = histogram.stack_up({"OK": [0.1] * 1_000_000, "REVIEW": [], "NG": [0.9]}, 0.6)
    (rare,) = (bar for bar in stack.bars if bar.group == "NG")
    assert rare.height >= 2


@pytest.fixture
def results(triton: Any, tmp_path: Path, save_image: Callable[..., Path]) -> Path:
    for number in range(6):
        save_image(tmp_path / "parts" / f"<b>{number}.png", number * 50, size=(300, 200))
    (tmp_path / "parts" / "bad.png").write_text("no image")
    arguments = [str(tmp_path / "parts"), "--url", triton.url, "--output", str(tmp_path / "out")]
    assert CliRunner().invoke(main, ["score", *arguments]).exit_code == 3
    return tmp_path / "out"


def test_the_report_asks_no_network_for_anything(results: Path) -> None:
    page = (results / "report.html").read_text()
    assert re.findall(r'(?:src|href)="[^"]*"', page) == []
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in page


def test_the_report_lets_its_own_script_run_and_no_other(results: Path) -> None:
    page = (results / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_the_report_shows_pictures_from_where_they_lie(results: Path) -> None:
    page = (results / "report.html").read_text()
    assert page_data(page)["pictures"]["image"] == "../parts/"
    assert page_data(page, "embedded") == {}


def test_an_embedded_report_holds_its_pictures(results: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(results), "--embed"])
    assert done.exit_code == 0
    embedded = page_data((results / "report.html").read_text(), "embedded")
    assert len(embedded) == 6
    for pictures in embedded.values():
        assert set(pictures) == {"image", "reconstruction", "heatmap"}
        assert all(uri.startswith("data:image/jpeg;base64,") for uri in pictures.values())


def test_images_that_browsers_do_not_show_are_embedded(
    triton: Any, tmp_path: Path, save_image: Callable[..., Path]
) -> None:
    save_image(tmp_path / "parts" / "a.tif", 50)
    save_image(tmp_path / "parts" / "b.png", 50)
    arguments = [str(tmp_path / "parts"), "--url", triton.url, "--output", str(tmp_path / "out")]
    assert CliRunner().invoke(main, ["score", *arguments]).exit_code == 0
    embedded = page_data((tmp_path / "out" / "report.html").read_text(), "embedded")
    assert {place: set(pictures) for place, pictures in embedded.items()} == {"0": {"image"}}


def test_the_report_tells_model_release_thresholds_counts_and_failures(results: Path) -> None:
    page = (results / "report.html").read_text()
    for text in ("screw", "a" * 64, "0.3000", "0.6000"):
        assert text in page
    assert "bad.png" in page
    assert "not an image that can be read" in page
    counts = re.findall(r'id="count-(\w+)"><b>(\d+)</b>', page)
    assert counts == [("OK", "2"), ("REVIEW", "2"), ("NG", "2")]


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
    assert page_data(page)["names"][0] == "<b>0.png"


def test_the_report_command_makes_the_same_report_again(results: Path) -> None:
    before = (results / "report.html").read_bytes()
    (results / "report.html").unlink()
    done = CliRunner().invoke(main, ["report", str(results)])
    assert done.exit_code == 0
    assert done.stdout.strip() == str(results / "report.html")
    assert (results / "report.html").read_bytes() == before


def test_images_that_were_moved_are_found_where_the_user_says(results: Path) -> None:
    moved = results.parent / "100 % of it"
    (results.parent / "parts").rename(moved)
    done = CliRunner().invoke(main, ["report", str(results), "--images", str(moved)])
    assert done.exit_code == 0
    page = (results / "report.html").read_text()
    assert page_data(page)["pictures"]["image"] == "../100%20%25%20of%20it/"


def test_images_in_a_bucket_are_not_linked(results: Path) -> None:
    summary = json.loads((results / "run.json").read_text())
    (results / "run.json").write_text(json.dumps(summary | {"root": "s3://line1/today"}))
    assert CliRunner().invoke(main, ["report", str(results)]).exit_code == 0
    assert page_data((results / "report.html").read_text())["pictures"]["image"] is None


def test_the_speed_of_a_run_that_went_on_is_that_of_its_last_part(results: Path) -> None:
    summary = json.loads((results / "run.json").read_text())
    changed = summary | {"images": 12_000, "scored": 500, "seconds": 10.0}
    (results / "run.json").write_text(json.dumps(changed))
    assert CliRunner().invoke(main, ["report", str(results)]).exit_code == 0
    page = (results / "report.html").read_text()
    assert "12,000 images, 500 of them in 10.0 s (50.0 images/s)" in page


@pytest.mark.parametrize("failed", [0, 3])
def test_a_run_of_which_nothing_was_scored_has_a_page_that_says_so(
    results: Path, failed: int
) -> None:
    lines = [
        json.dumps(Row.failed(f"{n}.png", ValueError("too dark")).to_document())
        for n in range(failed)
    ]
    (results / "results.jsonl").write_text("\n".join(lines))
    assert CliRunner().invoke(main, ["report", str(results)]).exit_code == 0
    page = (results / "report.html").read_text()
    assert page_data(page) is None
    assert page.count("too dark") == failed


def test_without_a_browser_a_pdf_is_an_error_that_says_what_to_do(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (results / "report.html").write_bytes(b"as it was")
    monkeypatch.setenv("PATH", "")
    done = CliRunner().invoke(main, ["report", str(results), "--pdf"])
    assert done.exit_code == 1
    assert "install Chromium" in done.stderr
    assert (results / "report.html").read_bytes() == b"as it was"


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


def test_a_report_with_a_baseline_tells_the_drift_and_draws_it(results: Path) -> None:
    earlier = results.parent / "earlier <b>"
    shutil.copytree(results, earlier)
    (earlier / "report.html").unlink()
    done = CliRunner().invoke(main, ["report", str(results), "--baseline", str(earlier)])
    assert done.exit_code == 0, done.stderr
    page = (results / "report.html").read_text()
    assert "Too little is known: 6 parts against 6" in page
    assert "earlier &lt;b&gt;" in page
    assert sum(page_data(page)["baseline"]) == 6
    assert not (earlier / "report.html").exists()


def test_of_very_many_lots_those_that_moved_furthest_are_told(results: Path) -> None:
    earlier = results.parent / "earlier"
    shutil.copytree(results, earlier)

    def lines(lots: int, moved: int | None) -> str:
        rows = (
            row(35 * lot + n, 0.1 + n % 7 / 100 + (lot == moved) / 2, fields={"lot": f"{lot:02}"})
            for lot in range(lots)
            for n in range(35)
        )
        return "\n".join(json.dumps(one.to_document()) for one in rows)

    (earlier / "results.jsonl").write_text(lines(3, None))
    (results / "results.jsonl").write_text(lines(40, 33))
    write_report(results, baseline=earlier)
    page = (results / "report.html").read_text()
    assert "The 25 that moved furthest, of 40" in page
    told = re.findall(r"<td><bdi>(\d+)</bdi></td>", page)
    assert len(told) == 25
    assert told[0] == "33"


def test_rates_without_a_baseline_are_wrong_usage(results: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(results), "--review-rate", "0.05"])
    assert done.exit_code == 2
    assert "--baseline" in done.stderr
