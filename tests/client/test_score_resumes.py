"""A run that was stopped, however it was, is gone on with by the same command."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffusionad_client.cli import main
from diffusionad_client.output_folders import claimed
from diffusionad_client.scoring.appending import WholeLines
from diffusionad_client.scoring.results import RESULTS, read_rows, read_summary
from diffusionad_client.testing import Fault

SaveImage = Callable[..., Path]
OF_THE_MOMENT = ("timings", "scored_at", "request_id", "server")


def score(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["score", *map(str, arguments)], catch_exceptions=False)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(output: Path) -> list[dict[str, Any]]:
    return lines(output / "results.jsonl")


def content(output: Path) -> list[str]:
    """The rows that hold, without what differs from one moment to the next."""
    found = []
    for row in read_rows(output):
        document = row.to_document()
        found.append(json.dumps({k: v for k, v in document.items() if k not in OF_THE_MOMENT}))
    return sorted(found)


@pytest.fixture
def parts(tmp_path: Path, save_image: SaveImage) -> Path:
    for number in range(12):
        save_image(tmp_path / "parts" / f"{number:02}.png", 20 * number)
    return tmp_path / "parts"


@pytest.fixture
def command(triton: Any, parts: Path, tmp_path: Path) -> tuple[object, ...]:
    return (parts, "--url", triton.url, "--output", tmp_path / "out", "--no-report")


def test_the_same_command_again_asks_the_server_for_nothing(
    triton: Any, command: tuple[object, ...], tmp_path: Path
) -> None:
    assert score(*command).exit_code == 0
    before, asked = rows(tmp_path / "out"), len(triton.requests)
    again = score(*command)
    assert again.exit_code == 0
    assert "0 of them now, 12 before" in again.stdout
    assert rows(tmp_path / "out") == before
    assert len(triton.requests) == asked


def test_what_is_new_or_changed_is_scored_and_the_others_are_not(
    triton: Any, command: tuple[object, ...], parts: Path, tmp_path: Path, save_image: SaveImage
) -> None:
    score(*command)
    asked = len(triton.requests)
    save_image(parts / "03.png", 250)
    save_image(parts / "new.png", 10)
    (parts / "05.png").unlink()
    again = score(*command)
    assert len(triton.requests) == asked + 2
    assert "1 images of the results are no longer there, and their records stay: 05.png" in (
        again.stderr
    )
    held = {row.image: row.verdict for row in read_rows(tmp_path / "out")}
    assert len(held) == 13
    assert (held["03.png"], held["new.png"]) == ("NG", "OK")
    assert "13 images" in again.stdout
    table = (tmp_path / "out" / "results.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(table) == 14


@pytest.mark.parametrize(
    "change", [("--accept", "0.1"), ("--heatmaps", "none"), ("--save-maps",), ("a release",)]
)
def test_what_other_settings_or_another_release_gave_is_scored_anew(
    triton: Any, command: tuple[object, ...], tmp_path: Path, change: tuple[str, ...]
) -> None:
    score(*command)
    asked = len(triton.requests)
    if change == ("a release",):
        triton.promote(release="b" * 64)
        change = ()
    assert score(*command, *change).exit_code == 0
    assert len(triton.requests) == asked + 12
    assert len(list(read_rows(tmp_path / "out"))) == 12
    assert score(*command, *change).exit_code == 0
    assert len(triton.requests) == asked + 12


def test_the_results_say_what_their_thresholds_were_calibrated_to(
    command: tuple[object, ...], tmp_path: Path
) -> None:
    for own, rates in (((), (0.01, 0.05)), (("--reject", "0.7"), (None, 0.05))):
        assert score(*command, *own).exit_code == 0
        summary = read_summary(tmp_path / "out")
        assert (summary.false_reject_rate, summary.review_rate) == rates


def test_failures_are_tried_again_only_if_asked_for(
    triton: Any, command: tuple[object, ...], parts: Path, tmp_path: Path
) -> None:
    (parts / "text.png").write_text("no image")
    triton.fail(Fault.FAILS, times=1)
    assert score(*command, "--concurrency", "1").exit_code == 3
    asked = len(triton.requests)
    assert score(*command).exit_code == 3  # as if it had not been stopped
    assert len(triton.requests) == asked
    assert score(*command, "--retry-failed").exit_code == 3
    assert len(triton.requests) == asked + 1
    failed = [row.image for row in read_rows(tmp_path / "out") if row.verdict is None]
    assert failed == ["text.png"]


def test_results_of_other_images_are_neither_mixed_with_nor_lost(
    triton: Any, command: tuple[object, ...], tmp_path: Path, save_image: SaveImage
) -> None:
    score(*command)
    before = rows(tmp_path / "out")
    other = save_image(tmp_path / "other" / "00.png").parent
    refused = score(other, *command[1:])
    assert refused.exit_code == 1
    assert f"screw for the images in {tmp_path / 'parts'}" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert rows(tmp_path / "out") == before


def test_a_second_run_is_told_who_holds_the_results(
    command: tuple[object, ...], tmp_path: Path
) -> None:
    score(*command)
    with claimed(tmp_path / "out", RESULTS, overwrite=True):
        second = score(*command)
    assert second.exit_code == 1
    assert f"another run is writing there: process {os.getpid()} on" in second.stderr


def test_an_overwrite_that_was_killed_is_finished_by_the_same_command_and_by_no_other(
    triton: Any, command: tuple[object, ...], tmp_path: Path
) -> None:
    score(*command)

    def die_after_four(call: Any) -> None:
        if len(triton.requests) == asked + 4:
            triton.fail(Fault.BROKEN_LINE)

    asked = len(triton.requests)
    triton.on_call = die_after_four
    stopped = (*command, "--overwrite", "--timeout", "0.3", "--patience", "0", "--save-maps")
    assert score(*stopped).exit_code == 4
    triton.on_call = None
    triton.heal()
    assert len(rows(tmp_path / "out")) == 12
    refused = score(*command)
    assert refused.exit_code == 1
    assert "finish it with --overwrite" in refused.stderr
    left = lines(tmp_path / "out" / "results.jsonl.part")
    assert score(*stopped).exit_code == 0
    assert rows(tmp_path / "out")[: len(left)] == left
    assert len(rows(tmp_path / "out")) == 12


TORN = ['{"schema": 2, "image": "a', "\0" * 100, '{"schema": 2, "image": "00.png"}\n\0\0\n', "{}"]


@pytest.mark.parametrize("tail", TORN)
def test_a_file_whose_end_was_torn_off_is_mended(tmp_path: Path, tail: str) -> None:
    whole = '{"image": "a.png"}\n'
    for number in (0, 1, 3):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(whole * number + tail)
        with WholeLines(path) as file:
            file.write('{"image": "b.png"}\n')
        kept = {TORN[2]: '{"schema": 2, "image": "00.png"}\n', TORN[3]: "{}\n"}.get(tail, "")
        assert path.read_text() == whole * number + kept + '{"image": "b.png"}\n'


def kill_at_random(
    triton: Any, parts: Path, tmp_path: Path, *, kills: int, concurrency: int = 4
) -> None:
    """Kill a run again and again, and compare what comes of it with an undisturbed run's."""
    program = [sys.executable, "-m", "diffusionad_client", "score", str(parts), "--no-report"]
    program += ["--url", triton.url, "--concurrency", str(concurrency), "--output"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert subprocess.run([*program, str(undisturbed)], check=False).returncode == 3
    images = len(rows(undisturbed))
    draw = random.Random(0)
    asked = sum(triton.counts.values())
    triton.on_call = lambda call: time.sleep(0.02)
    part = killed / "results.jsonl.part"
    for _ in range(kills):
        before = len(part.read_bytes().splitlines()) if part.exists() else 0
        goal = before + draw.randint(0, max(images // kills - 2, 1))
        with subprocess.Popen([*program, str(killed)], stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                if part.exists() and len(part.read_bytes().splitlines()) >= goal:
                    time.sleep(draw.uniform(0, 0.05))
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert not (killed / "results.jsonl").exists()
    inferred = triton.counts["ModelInfer"]
    assert subprocess.run([*program, str(killed)], check=False).returncode == 3
    assert asked < inferred
    assert content(killed) == content(undisturbed)
    assert len(rows(killed)) == images  # never a result twice
    in_flight = kills * 2 * concurrency  # what was under way at each kill, or drawn but not written
    good = sum(row["error"] is None for row in rows(undisturbed))
    assert triton.counts["ModelInfer"] <= 2 * good + in_flight
    pictures = {path.relative_to(undisturbed) for path in undisturbed.rglob("*.png")}
    assert {path.relative_to(killed) for path in killed.rglob("*.png")} == pictures
    for name in pictures:
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_run_killed_at_random_gives_what_an_undisturbed_one_gives(
    triton: Any, parts: Path, tmp_path: Path, save_image: SaveImage
) -> None:
    for number in range(30):
        save_image(parts / f"more/{number}.png", number, size=(8, 8))
    (parts / "text.png").write_text("no image")
    kill_at_random(triton, parts, tmp_path, kills=2)


@pytest.mark.long
def test_a_run_killed_at_twenty_random_moments_gives_what_an_undisturbed_one_gives(
    triton: Any, parts: Path, tmp_path: Path, save_image: SaveImage
) -> None:
    for number in range(400):
        save_image(parts / f"more/{number}.png", number % 256, size=(8, 8))
    (parts / "text.png").write_text("no image")
    kill_at_random(triton, parts, tmp_path, kills=20)


def test_a_first_ctrl_c_finishes_what_is_under_way_and_the_same_command_goes_on(
    triton: Any, command: tuple[object, ...], tmp_path: Path
) -> None:
    triton.on_call = lambda call: time.sleep(0.1)
    program = [sys.executable, "-m", "diffusionad_client", "score", *map(str, command)]
    part = tmp_path / "out" / "results.jsonl.part"
    with subprocess.Popen(
        [*program, "--concurrency", "2"], stderr=subprocess.PIPE, text=True
    ) as process:
        while not (part.exists() and part.stat().st_size):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Finishing what is under way" in stderr
    assert "the same command goes on" in stderr
    kept = lines(part)
    assert triton.counts["ModelInfer"] == len(kept) < 12
    assert score(*command).exit_code == 0
    assert rows(tmp_path / "out")[: len(kept)] == kept
    assert triton.counts["ModelInfer"] == 12
