"""`diffusionad calibrate`: from a folder of results to thresholds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from diffusionad_client.artifacts.calibration import threshold_for
from diffusionad_client.cli import main
from diffusionad_client.output_folders import claimed
from diffusionad_client.pages.pictures import map_png, read_map_png
from diffusionad_client.scoring.results import RESULTS, RunSummary
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.sinks import FolderSink

GOOD = [0.001 * number for number in range(200)]
DEFECTIVE = [0.15, *(0.5 + 0.01 * number for number in range(39))]

Write = Callable[[list[Row]], Path]


def row(image: str, score: float | None) -> Row:
    return Row(
        image=image, score=score, verdict="OK", accept=0.3, reject=0.6, model="screw", release="r1"
    )


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(rows: list[Row]) -> Path:
        with claimed(tmp_path / "results", RESULTS) as output, FolderSink(output) as writer:
            for one in rows:
                writer.write(one)
            writer.finish(
                RunSummary(
                    model="screw",
                    server="127.0.0.1:1",
                    root=str(tmp_path),
                    started="2026-01-01T00:00:00+00:00",
                    seconds=1.0,
                    images=len(rows),
                    failed=0,
                    verdicts={},
                )
            )
        return tmp_path / "results"

    return make


def parts() -> list[Row]:
    good = [row(f"good/{number:03}.png", score) for number, score in enumerate(GOOD)]
    bad = [row(f"scratch/{number:03}.png", score) for number, score in enumerate(DEFECTIVE)]
    return [*good, *bad]


def calibrate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments)])


def document(*arguments: object) -> dict[str, Any]:
    result = calibrate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_good_parts_alone_set_both_thresholds(write: Write) -> None:
    results = write(parts())
    said = document(results, "--good", "good/*", "--false-reject-rate", 0.01)
    assert said["reject"] == threshold_for(GOOD, 0.01)
    assert said["accept"] == threshold_for(GOOD, 0.05)
    assert said["calibration"]["good_images"] == 200
    assert said["pixel_threshold"] is None
    assert (said["model"], said["release"]) == ("screw", "r1")


def test_defects_set_one_threshold_and_good_parts_the_other(write: Write) -> None:
    results = write(parts())
    said = document(results, "--defects", "scratch/*", "--miss-rate", 0.01)
    assert said["accept"] == pytest.approx(0.15)
    assert said["reject"] == threshold_for(GOOD, 0.01)
    assert said["calibration"]["defective_images"] == 40
    assert "40 defective images are too few" in said["calibration"]["warning"]


def test_saved_maps_set_the_pixel_threshold(write: Write) -> None:
    names = [f"anomaly_maps/{number}.png" for number in range(2)]
    rows = [replace(row(f"{name}.png", 0.1), anomaly_map=name) for name in names]
    results = write(rows)
    (results / "anomaly_maps").mkdir()
    for name, level in zip(names, (0.25, 0.5), strict=True):
        (results / name).write_bytes(map_png(np.full((16, 16), level, dtype=np.float32)))
    assert document(results)["pixel_threshold"] == pytest.approx(0.5, abs=1e-4)


def test_a_saved_map_is_read_as_it_was_to_16_bits(tmp_path: Path) -> None:
    anomaly_map = np.random.default_rng(0).random((9, 7), dtype=np.float32)
    path = tmp_path / "map.png"
    path.write_bytes(map_png(anomaly_map))
    np.testing.assert_allclose(read_map_png(path), anomaly_map, atol=0.5001 / 65535)


def test_what_it_prints_is_what_a_person_needs(write: Write) -> None:
    result = calibrate(write(parts()), "--defects", "scratch/*")
    assert "200 good and 40 defective images" in result.output
    assert "Of the defective: OK 0.0%, REVIEW 2.5%, NG 97.5%" in result.output
    assert "True miss rate at most 7.2%" in result.output  # 1 - 0.05 ** (1 / 40)
    assert "too few" in result.stderr


def test_images_that_no_pattern_names_are_counted(write: Write) -> None:
    result = calibrate(write(parts()), "--good", "good/*")
    assert "Left out: 40 that no pattern names" in result.output


def test_a_pattern_that_names_nothing_is_an_error(write: Write) -> None:
    result = calibrate(write(parts()), "--good", "fine/*")
    assert result.exit_code == 1
    assert "scores of good images" in result.output


def test_scores_of_two_releases_are_not_mixed(write: Write) -> None:
    result = calibrate(write([row("a.png", 0.1), replace(row("b.png", 0.2), release="r2")]))
    assert result.exit_code == 1
    assert "2 releases (r1, r2)" in result.output


def test_a_score_that_is_no_number_names_its_image(write: Write) -> None:
    result = calibrate(write([row("a.png", 0.1), row("b.png", None)]))
    assert result.exit_code == 1
    assert "b.png is not a number" in result.output


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    result = calibrate(tmp_path)
    assert result.exit_code == 1
    assert "results.jsonl" in result.output
