from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from diffusionad_client import Client, images
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.cli import main
from diffusionad_client.pages import pictures
from diffusionad_client.scoring import batch, giving_up, run
from diffusionad_client.scoring.drawing import Drawing, Heatmaps
from diffusionad_client.scoring.local_files import ImageSet
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.score_one import Recipe, score_one
from diffusionad_client.scoring.sources import SourceImage
from diffusionad_client.testing import Fault, Refusal

SaveImage = Callable[..., Path]


def score(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["score", *map(str, arguments)], catch_exceptions=False)


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def parts(tmp_path: Path, save_image: SaveImage) -> Path:
    """Three parts, one of each verdict."""
    for name, red in (("good.png", 20), ("deep/doubtful.jpg", 110), ("deep/bad.bmp", 230)):
        save_image(tmp_path / "parts" / name, red)
    return tmp_path / "parts"


def test_every_row_names_the_region_that_was_inspected(
    triton: Any, make_category: Any, parts: Path, tmp_path: Path
) -> None:
    triton.serve(make_category(roi="e" * 64))
    output = tmp_path / "out"
    assert score(parts, "--url", triton.url, "--output", output).exit_code == 0
    assert {row["roi"] for row in rows(output)} == {"e" * 64}
    with (output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        assert {row["roi"] for row in csv.DictReader(file)} == {"e" * 64}


def test_images_are_scored_with_the_depth_that_the_release_remembers(
    triton: Any, make_category: Any, tmp_path: Path
) -> None:
    triton.serve(make_category(depth=12))
    Image.fromarray(np.full((40, 40), 2048, np.uint16)).save(tmp_path / "part.png")
    output = tmp_path / "out"
    assert score(tmp_path / "part.png", "--url", triton.url, "--output", output).exit_code == 0
    assert rows(output)[0]["score"] == pytest.approx(128 / 255, abs=1e-6)


def test_a_folder_is_scored_in_order_with_results_pictures_and_report(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    result = score(parts, "--model", "screw", "--url", triton.url, "--output", output)
    assert result.exit_code == 0, result.output
    assert [(row["image"], row["verdict"]) for row in rows(output)] == [
        ("good.png", "OK"),
        ("deep/bad.bmp", "NG"),
        ("deep/doubtful.jpg", "REVIEW"),
    ]
    bad = rows(output)[1]
    assert bad["score"] == pytest.approx(230 / 255)
    assert bad["thresholds"] == {"accept": 0.3, "reject": 0.6}
    assert (bad["model"], bad["version"], bad["release"]) == ("screw", "1", "a" * 64)
    assert bad["error"] is None
    assert set(bad["timings"]) == {"decode_s", "resize_s", "request_s"}
    for picture in (bad["heatmap"], bad["reconstruction"]):
        assert images.load(output / picture).shape[2] == 3
    assert "3 images, screw: OK 1   REVIEW 1   NG 1   failed 0" in result.stdout
    assert (output / "report.html").is_file()
    assert list(output.rglob("*.part")) == []


def test_the_csv_says_the_same_as_the_json_lines(triton: Any, parts: Path, tmp_path: Path) -> None:
    (parts / "broken.png").write_text("not an image")
    score(parts, "--url", triton.url, "--output", tmp_path / "out", "--no-report")
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        flat = list(csv.DictReader(file))
    nested = rows(tmp_path / "out")
    assert [row["image"] for row in flat] == [row["image"] for row in nested]
    for line, document in zip(flat, nested, strict=True):
        if document["error"] is None:
            assert float(line["score"]) == document["score"]
            assert float(line["accept"]) == document["thresholds"]["accept"]
        else:
            assert line["score"] == ""
            assert line["error_type"] == document["error"]["type"]


def test_bad_files_are_failed_rows_and_the_others_are_scored(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    whole = (parts / "deep" / "doubtful.jpg").read_bytes()
    (parts / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (parts / "empty.png").write_bytes(b"")
    (parts / "text.png").write_text("I am text")
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 3
    failures = {row["image"]: row["error"] for row in rows(tmp_path / "out") if row["error"]}
    assert set(failures) == {"cut.jpg", "empty.png", "text.png"}
    assert all(error["type"] == "ImageError" for error in failures.values())
    assert "empty" in failures["empty.png"]["message"]
    assert "damaged" in failures["cut.jpg"]["message"]
    assert "not an image" in failures["text.png"]["message"]
    assert "failed 3" in result.stdout
    assert "Not scored: text.png" in result.stderr
    assert len(rows(tmp_path / "out")) == 6
    assert "text.png" in (tmp_path / "out" / "report.html").read_text()


def test_a_folder_of_bad_files_only_still_gives_results_and_a_report(
    triton: Any, tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.png").write_bytes(b"")
    result = score(tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 3
    assert rows(tmp_path / "out")[0]["score"] is None
    assert "a.png" in (tmp_path / "out" / "report.html").read_text()


def test_images_that_differ_in_suffix_only_have_heat_maps_of_their_own(
    triton: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    save_image(tmp_path / "parts" / "a.png", 10)
    save_image(tmp_path / "parts" / "a.jpg", 250)
    score(tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out")
    made = sorted(path.name for path in (tmp_path / "out" / "heatmaps").iterdir())
    assert made == ["a.jpg.png", "a.png.png"]
    assert {row["heatmap"] for row in rows(tmp_path / "out")} == {f"heatmaps/{n}" for n in made}


@pytest.mark.parametrize(
    ("chosen", "suffix", "found"), [("jpeg", ".jpg", "JPEG"), ("webp", ".webp", "WEBP")]
)
def test_heat_maps_are_written_in_the_format_that_was_chosen(
    triton: Any, parts: Path, tmp_path: Path, chosen: str, suffix: str, found: str
) -> None:
    output = tmp_path / "out"
    score(parts, "--url", triton.url, "--output", output, "--picture-format", chosen)
    for row in rows(output):
        assert row["heatmap"] == f"heatmaps/{row['image']}{suffix}"
        with Image.open(output / row["heatmap"]) as picture:
            assert picture.format == found
    page = (output / "report.html").read_text()
    assert "heat map is no longer there" not in page


def test_two_folders_with_equal_names_keep_their_images_apart(
    triton: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    for folder in ("left", "right"):
        save_image(tmp_path / folder / "000.png")
    score(tmp_path / "left", tmp_path / "right", "--url", triton.url, "--output", tmp_path / "out")
    assert [row["image"] for row in rows(tmp_path / "out")] == ["left/000.png", "right/000.png"]


def test_thresholds_can_be_overridden_one_by_one(triton: Any, parts: Path, tmp_path: Path) -> None:
    score(parts, "--url", triton.url, "--output", tmp_path / "out", "--accept", "0.5")
    assert [row["verdict"] for row in rows(tmp_path / "out")] == ["OK", "NG", "OK"]
    assert rows(tmp_path / "out")[0]["thresholds"] == {"accept": 0.5, "reject": 0.6}


def test_thresholds_in_the_wrong_order_are_refused(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out", "--accept", "0.9")
    assert result.exit_code == 1
    assert "accept <= reject" in result.stderr


def test_a_folder_waits_behind_the_parts_on_the_line(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    assert score(parts, "--url", triton.url, "--output", tmp_path / "out").exit_code == 0
    assert {request.priority for request in triton.requests} == {2}


def test_without_heat_maps_neither_maps_nor_reconstructions_are_sent(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out", "--no-heatmaps")
    assert result.exit_code == 0
    assert {request.outputs for request in triton.requests} == {("SCORE",)}
    assert not (tmp_path / "out" / "heatmaps").exists()
    assert rows(tmp_path / "out")[0]["heatmap"] is None


def test_saved_maps_hold_the_map_in_16_bits(triton: Any, parts: Path, tmp_path: Path) -> None:
    score(parts, "--url", triton.url, "--output", tmp_path / "out", "--save-maps", "--no-heatmaps")
    with Image.open(tmp_path / "out" / "anomaly_maps" / "good.png.png") as saved:
        values = np.asarray(saved) / 65535
    np.testing.assert_allclose(values, 20 / 255, atol=1e-5)


def test_earlier_results_are_replaced_only_if_they_may_be_overwritten(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    arguments = (parts, "--url", triton.url, "--output", tmp_path / "out")
    score(*arguments)
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    (parts / "good.png").unlink()
    assert score(*arguments).exit_code == 0
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before
    assert score(*arguments, "--overwrite").exit_code == 0
    assert len(rows(tmp_path / "out")) == 2
    assert not (tmp_path / "out" / "heatmaps" / "good.png.png").exists()


def test_an_output_folder_inside_the_source_is_not_scored_the_second_time(
    triton: Any, parts: Path
) -> None:
    arguments = (parts, "--url", triton.url, "--output", parts / "out")
    score(*arguments)
    score(*arguments, "--overwrite")
    assert len(rows(parts / "out")) == 3


def test_an_output_that_is_a_file_is_an_error(triton: Any, parts: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert str(tmp_path / "out") in result.stderr


def test_a_dead_server_is_one_message_and_no_results(
    dead_url: str, parts: Path, tmp_path: Path
) -> None:
    result = score(parts, "--url", dead_url, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "no server answers" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_dead_server_does_not_cost_earlier_results(
    triton: Any, dead_url: str, parts: Path, tmp_path: Path
) -> None:
    score(parts, "--url", triton.url, "--output", tmp_path / "out")
    score(parts, "--url", dead_url, "--output", tmp_path / "out", "--overwrite")
    assert len(rows(tmp_path / "out")) == 3


def test_a_server_that_dies_ends_the_run_and_leaves_what_was_scored(
    triton: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    for i in range(60):
        save_image(tmp_path / "parts" / f"{i:02}.png", i)

    def die_after_ten(call: Any) -> None:
        if call.method == "ModelInfer" and len(triton.requests) == 10:
            triton.fail(Fault.BROKEN_LINE)

    triton.on_call = die_after_ten
    output = tmp_path / "out"
    arguments = (tmp_path / "parts", "--url", triton.url, "--output", output, "--timeout", "0.5")
    result = score(*arguments, "--patience", "0.5")
    assert result.exit_code == 4
    assert "of 60 images were scored" in result.stderr
    assert "Paused: " in result.stderr
    part = (output / "results.jsonl.part").read_text().splitlines()
    assert 1 <= len(part) <= 10
    assert all(json.loads(line)["error"] is None for line in part)
    assert not (output / "results.jsonl").exists()


def test_a_blip_costs_no_image(triton: Any, tmp_path: Path, save_image: SaveImage) -> None:
    for i in range(30):
        save_image(tmp_path / "parts" / f"{i:02}.png", i)

    def fail_for_a_while(call: Any) -> None:
        if call.method == "ModelInfer" and len(triton.requests) == 10:
            triton.fail(Fault.BROKEN_LINE)
            Timer(0.7, triton.heal).start()

    triton.on_call = fail_for_a_while
    result = score(tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "failed 0" in result.stdout


def test_a_server_that_comes_back_within_the_patience_costs_no_image(
    triton: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    for i in range(12):
        save_image(tmp_path / "parts" / f"{i:02}.png", i)

    def fail_for_a_while(call: Any) -> None:
        if call.method == "ModelInfer" and len(triton.requests) == 3:
            triton.fail(Fault.BROKEN_LINE)
            Timer(1.5, triton.heal).start()

    triton.on_call = fail_for_a_while
    output = tmp_path / "out"
    result = score(
        *(tmp_path / "parts", "--url", triton.url, "--output", output),
        *("--timeout", "0.4", "--concurrency", "1"),  # shorter than the outage
    )
    assert result.exit_code == 0, result.output
    assert "Waiting up to 10 min" in result.stderr
    assert "Going on after" in result.stderr
    assert [row["image"] for row in rows(output)] == [f"{i:02}.png" for i in range(12)]


def test_a_refusal_ends_the_run_without_patience(
    triton: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    for i in range(60):
        save_image(tmp_path / "parts" / f"{i:02}.png", i)

    def lock_out(call: Any) -> None:
        if call.method == "ModelInfer" and len(triton.requests) == 10:
            triton.fail(Refusal(grpc.StatusCode.PERMISSION_DENIED, "no"))

    triton.on_call = lock_out
    started = time.monotonic()
    result = score(tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "access refused" in result.stderr
    assert time.monotonic() - started < giving_up.PATIENCE_S


def test_a_picture_whose_name_is_too_long_is_a_failed_row(
    triton: Any, parts: Path, tmp_path: Path, save_image: SaveImage
) -> None:
    name = "n" * 250 + ".png"
    save_image(parts / name)
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 3, result.output
    (failed,) = (row for row in rows(tmp_path / "out") if row["error"])
    assert failed["image"] == name
    assert "File name too long" in failed["error"]["message"]
    assert len(rows(tmp_path / "out")) == 4


def test_a_picture_that_cannot_be_drawn_is_a_failed_row(
    triton: Any, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = pictures.heat_map

    def heat_map(image: Any, *rest: Any) -> Any:
        if image[0, 0, 0] == 20:
            raise ValueError("cannot draw this")
        return draw(image, *rest)

    monkeypatch.setattr(pictures, "heat_map", heat_map)
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 3, result.output
    (failed,) = (row for row in rows(tmp_path / "out") if row["error"])
    assert failed["image"] == "good.png"
    assert failed["error"]["message"] == "its pictures cannot be drawn: cannot draw this"


def test_one_threshold_of_the_user_is_joined_by_that_of_the_release_that_answers(
    triton: Any, tmp_path: Path, save_image: SaveImage, make_metadata: Any
) -> None:
    for i in range(6):
        save_image(tmp_path / "parts" / f"{i}.png", 128)

    def release_anew(call: Any) -> None:
        if call.method == "ModelInfer" and len(triton.requests) == 3:
            triton.promote(release="b" * 64, thresholds=Thresholds(0.1, 0.4))

    triton.on_call = release_anew
    score(
        *(tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out"),
        *("--accept", "0.2", "--concurrency", "1"),
    )
    judged = [(r["version"], r["thresholds"], r["verdict"]) for r in rows(tmp_path / "out")]
    assert judged[0] == ("1", {"accept": 0.2, "reject": 0.6}, "REVIEW")
    assert judged[-1] == ("2", {"accept": 0.2, "reject": 0.4}, "NG")


def test_an_interruption_before_anything_is_scored_names_no_file(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "score_batch", interrupt)
    result = score(parts, "--output", tmp_path / "out")
    assert result.exit_code == 130
    assert "What was scored" not in result.stderr


def test_a_server_that_fails_every_image_of_a_small_folder_is_one_error(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    triton.fail(Fault.BROKEN_LINE)
    output = tmp_path / "out"
    arguments = (parts, "--url", triton.url, "--output", output, "--timeout", "0.5")
    result = score(*arguments, "--patience", "0.5")
    assert result.exit_code == 4
    assert "0 of 3 images were scored" in result.stderr


def test_an_image_that_the_server_fails_is_a_failed_row(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    triton.fail(Refusal(grpc.StatusCode.INTERNAL, "out of memory"))
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 3
    assert {row["error"]["type"] for row in rows(tmp_path / "out")} == {"InferenceError"}


def test_an_unknown_model_is_an_error_that_lists_the_served_ones(
    triton: Any, parts: Path, tmp_path: Path
) -> None:
    result = score(parts, "--model", "nut", "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "it serves: screw" in result.stderr


def test_a_missing_folder_is_an_error_that_names_it(triton: Any, tmp_path: Path) -> None:
    result = score(tmp_path / "none", "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{tmp_path / 'none'}: no such file or folder" in result.stderr


def test_no_source_is_wrong_usage(tmp_path: Path) -> None:
    result = score("--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "SOURCE" in result.stderr


def test_a_url_and_a_repository_are_wrong_usage(parts: Path, tmp_path: Path) -> None:
    result = score(parts, "--url", "a:1", "--repository", tmp_path, "--output", tmp_path / "out")
    assert result.exit_code == 2


def test_a_missing_jinja2_is_told_before_any_image_is_scored(
    triton: Any, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = score(parts, "--url", triton.url, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install ./client" in result.stderr
    assert not triton.requests


def test_images_under_way_are_bounded_however_many_there_are(
    triton: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    names = tuple(f"{i:03}.png" for i in range(100))
    for name in names:
        save_image(tmp_path / name, size=(8, 8))
    recipe = Recipe(drawing=Drawing(heatmaps=Heatmaps.NONE))
    with Client(triton.url, "screw") as client:

        def score_row(image: SourceImage) -> Row:
            return score_one(image, client.inspect, recipe).row

        rows = run.score_all(ImageSet(tmp_path, names), score_row, concurrency=2)
        first = next(rows)
        assert first is not None
        time.sleep(0.3)  # for threads to run ahead, if they could
        assert first.image == "000.png"
        assert len(triton.requests) <= 5
        assert [row.image for row in rows if row] == list(names[1:])
    assert len(triton.requests) == 100


def test_an_interrupted_run_ends_with_130_and_says_where_its_rows_are(
    triton: Any, tmp_path: Path, save_image: SaveImage
) -> None:
    for i in range(200):
        save_image(tmp_path / "parts" / f"{i:03}.png", i, size=(8, 8))
    triton.slow_s = 0.05
    command = [sys.executable, "-m", "diffusionad_client", "score", str(tmp_path / "parts")]
    command += ["--url", triton.url, "--output", str(tmp_path / "out"), "--concurrency", "1"]
    part = tmp_path / "out" / "results.jsonl.part"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert str(part) in stderr
    assert "Traceback" not in stderr
    assert 1 <= len(part.read_text().splitlines()) < 200
