"""How a run ends: exit codes, failures that are too many, fields, and progress for machines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client.cli import main
from diffusionad_client.errors import ArgumentError, TooManyFailuresError
from diffusionad_client.scoring.limits import FailureLimit
from diffusionad_client.scoring.path_fields import PathPattern

SaveImage = Callable[..., Path]


@pytest.fixture
def parts(tmp_path: Path, save_image: SaveImage) -> Path:
    """One image of each verdict, in two lots."""
    for name, red in (("l1/a/good.png", 20), ("l1/b/doubtful.png", 110), ("l2/a/bad.png", 230)):
        save_image(tmp_path / "parts" / name, red)
    return tmp_path / "parts"


@pytest.fixture
def score(triton: Any, parts: Path, tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        command = ["score", parts, "--url", triton.url, "--output", tmp_path / "out", *arguments]
        return CliRunner().invoke(main, [*map(str, command), "--no-report"], catch_exceptions=False)

    return run


def records(tmp_path: Path) -> dict[str, Any]:
    text = (tmp_path / "out" / "results.jsonl").read_text()
    return {record["image"]: record for record in map(json.loads, text.splitlines())}


@pytest.mark.parametrize(
    ("fail_on", "accept", "reject", "code"),
    [
        ("ng", 0.3, 0.6, 10),
        ("review", 0.3, 0.6, 10),
        ("ng", 0.3, 0.99, 0),
        ("review", 0.3, 0.99, 10),
        ("review", 0.95, 0.99, 0),
    ],
)
def test_defects_end_in_10_if_asked_for(
    score: Callable[..., Result], fail_on: str, accept: float, reject: float, code: int
) -> None:
    arguments = ("--fail-on", fail_on, "--accept", accept, "--reject", reject)
    assert score(*arguments).exit_code == code
    assert score(*arguments).exit_code == code  # also if another run scored them


def test_defects_go_before_failures(score: Callable[..., Result], parts: Path) -> None:
    (parts / "text.png").write_text("no image")
    assert score().exit_code == 3
    assert score("--fail-on", "ng").exit_code == 10


@pytest.mark.parametrize("limit", ["0", "10%"])
def test_too_many_failures_end_the_run_which_can_go_on(
    score: Callable[..., Result], parts: Path, tmp_path: Path, limit: str
) -> None:
    (parts / "a.png").write_text("no image")
    stopped = score("--max-failures", limit, "--concurrency", "1")
    assert stopped.exit_code == 1
    assert "of --max-failures" in stopped.stderr
    assert (tmp_path / "out" / "results.jsonl.part").exists()
    assert score().exit_code == 3
    assert len(records(tmp_path)) == 4


def test_a_share_of_failures_counts_from_the_hundredth_where_the_number_is_not_known() -> None:
    limit = FailureLimit.parse("10%")
    limit.check(99, 99, None)
    limit.check(10, 100, None)
    limit.check(10, 10, 100)
    for failed, done, of in ((11, 100, None), (11, 11, 100), (2, 2, 10)):
        with pytest.raises(TooManyFailuresError):
            limit.check(failed, done, of)


@pytest.mark.parametrize("text", ["", "many", "-1", "101%", "nan%", "1.5"])
def test_a_limit_that_is_none_is_wrong_usage(score: Callable[..., Result], text: str) -> None:
    with pytest.raises(ArgumentError):
        FailureLimit.parse(text)
    assert score("--max-failures", text).exit_code == 2


def test_records_have_the_fields_of_the_command_line_and_of_their_path(
    score: Callable[..., Result], tmp_path: Path
) -> None:
    done = score("--field", "shift=late", "--path-pattern", "{line}/{lot}/{serial}.png")
    assert done.exit_code == 0, done.output
    assert records(tmp_path)["l2/a/bad.png"]["fields"] == {
        "shift": "late",
        "line": "l2",
        "lot": "a",
        "serial": "bad",
    }
    table = (tmp_path / "out" / "results.csv").read_text(encoding="utf-8-sig")
    assert {row["lot"] for row in csv.DictReader(table.splitlines())} == {"a", "b"}


@pytest.mark.parametrize(
    ("pattern", "image", "fields"),
    [
        ("{lot}/{serial}.jpg", "deep/er/7/a.b.jpg", {"lot": "7", "serial": "a.b"}),
        ("{lot}_{serial}.{suffix}", "x/1_2_3.png", {"lot": "1", "serial": "2_3", "suffix": "png"}),
        ("lot-{lot}/{_}.jpg", "slot-7/a.jpg", None),
        ("{lot}/{serial}.jpg", "a.jpg", None),
        ("{a-b}.jpg", "line\nbreak.jpg", {"a-b": "line\nbreak"}),
        ("[{lot}].jpg", "[7].jpg", {"lot": "7"}),
    ],
)
def test_a_pattern_is_compared_with_the_end_of_a_path(
    pattern: str, image: str, fields: dict[str, str] | None
) -> None:
    assert PathPattern(pattern).fields(image) == fields


@pytest.mark.parametrize("pattern", ["lot/serial.jpg", "{}.jpg", "{lot}/{lot}.jpg", "{score}.jpg"])
def test_a_pattern_that_says_nothing_or_too_much_is_wrong_usage(
    score: Callable[..., Result], pattern: str
) -> None:
    assert score("--path-pattern", pattern).exit_code == 2


def test_a_pattern_that_fits_no_image_is_an_error_before_any_is_scored(
    triton: Any, score: Callable[..., Result]
) -> None:
    done = score("--path-pattern", "{site}/{line}/{lot}/{serial}.png")
    assert done.exit_code == 1
    assert "no image's path ends like that" in done.stderr
    assert not triton.requests


def test_heat_maps_can_be_of_ng_images_alone(score: Callable[..., Result], tmp_path: Path) -> None:
    score("--heatmaps", "ng", "--picture-format", "jpeg")
    drawn = {name: record["heatmap"] for name, record in records(tmp_path).items()}
    assert drawn == {
        "l1/a/good.png": None,
        "l1/b/doubtful.png": None,
        "l2/a/bad.png": "heatmaps/l2/a/bad.png.jpg",
    }
    made = [path.name for path in (tmp_path / "out" / "heatmaps").rglob("*.jpg")]
    assert made == ["bad.png.jpg"]


def test_records_say_where_the_defects_are_in_pixels_of_the_image(
    score: Callable[..., Result], tmp_path: Path
) -> None:
    score()
    bad, good = (records(tmp_path)[name] for name in ("l2/a/bad.png", "l1/a/good.png"))
    assert (bad["area_percent"], good["area_percent"]) == (100, 0)
    assert good["regions"] == []
    (region,) = bad["regions"]
    assert [region[side] for side in ("top", "left", "bottom", "right")] == [0, 0, 30, 40]
    assert region["peak"] == pytest.approx(230 / 255)


def test_progress_for_machines_is_json_on_every_line(score: Callable[..., Result]) -> None:
    done = score("--json-progress")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"done": 3, "images": 3, "skipped": 0, "failed": 0}.items() <= events[-1].items()
    assert events[-1]["verdicts"] == {"OK": 1, "REVIEW": 1, "NG": 1}
    again = json.loads(score("--json-progress").stderr.splitlines()[-1])
    assert (again["done"], again["skipped"]) == (3, 3)


@pytest.mark.parametrize("text", ["lot", "=7", "1lot=7", "score=7"])
def test_a_field_without_a_name_of_its_own_is_wrong_usage(
    score: Callable[..., Result], text: str
) -> None:
    assert score("--field", text).exit_code == 2


def test_an_unknown_format_is_wrong_usage(score: Callable[..., Result]) -> None:
    refused = score("--format", "xlsx")
    assert refused.exit_code == 2
    assert "jsonl, csv, parquet" in " ".join(refused.stderr.split())
