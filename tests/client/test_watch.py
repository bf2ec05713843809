"""A hot folder: each complete file is scored once, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from waiting import wait_for
from watched import Watched, WatchedHere

from diffusionad_client import Thresholds, scoring
from diffusionad_client.cli import main
from diffusionad_client.scoring.path_fields import FieldRule, PathPattern
from diffusionad_client.scoring.results import read_rows
from diffusionad_client.testing import FakeServer
from diffusionad_client.watching.verdict_commands import VerdictCommand

SaveImage = Callable[..., Path]


@pytest.fixture
def arrive(tmp_path: Path, save_image: SaveImage) -> Callable[..., Path]:
    """Let an image come into the folder, as careful writers do: written beside, and renamed."""

    def into(name: str, red: int = 10) -> Path:
        part = save_image(tmp_path / "aside" / "part.png", red)
        target = tmp_path / "in" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part.rename(target)
        return target

    return into


@pytest.fixture
def start(triton: FakeServer, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    running: list[Watched] = []

    def run(*arguments: object) -> Watched:
        running.append(Watched(tmp_path, triton.url, *arguments))
        running[-1].wait_until_ready()
        return running[-1]

    yield run
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.fixture
def here(triton: FakeServer, tmp_path: Path) -> Iterator[Callable[..., WatchedHere]]:
    """Watch in this process, which begins at once."""
    running: list[WatchedHere] = []

    def watch(**options: Any) -> WatchedHere:
        running.append(WatchedHere(tmp_path, triton.url, **options))
        return running[-1]

    yield watch
    for each in running:
        each.stop()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["watch", *map(str, arguments)], catch_exceptions=False)


def noted(tmp_path: Path) -> str:
    """A command that writes down what it is given."""
    script = tmp_path / "note.py"
    script.write_text(
        "import json, os, sys\n"
        "record = json.load(sys.stdin)\n"
        "note = [sys.argv[1:], os.environ['DIFFUSIONAD_IMAGE'], record['image']]\n"
        "with open(sys.argv[0] + '.notes', 'a') as notes:\n"
        "    notes.write(json.dumps(note) + '\\n')\n"
    )
    return f"'{sys.executable}' '{script}' {{verdict}} {{path}}"


def notes(tmp_path: Path) -> list[Any]:
    path = tmp_path / "note.py.notes"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_comes_is_scored_sorted_and_reported_as_score_does(
    start: Callable[..., Watched], arrive: Callable[..., Path], triton: FakeServer, tmp_path: Path
) -> None:
    arrive("before.png", 20)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    sorting = ("--sort", "move", "--sort-into", tmp_path / "sorted")
    watch = start(*sorting, "--on-verdict", "ANY", noted(tmp_path), "--metrics-port", port)
    arrive("deep/er/\u00e4 line\nbreak.png", 250)
    arrive("doubtful.png", 110)
    (tmp_path / "in" / "text.png").write_text("no image")
    (tmp_path / "in" / "notes.txt").write_text("no image by its name")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    names = ["before.png", "deep/er/\u00e4 line\nbreak.png", "doubtful.png", "pipe.png", "text.png"]
    watch.wait_for_images(*names)
    wait_for(lambda: len(notes(tmp_path)) == 5)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        metrics = answer.read().decode()
    for verdict, count in (("OK", 1), ("REVIEW", 1), ("NG", 1), ("FAILED", 2)):
        labels = f'{{category="screw",verdict="{verdict}"}}'
        assert f"diffusionad_watch_images_total{labels} {count}.0" in metrics
    assert watch.stop(signal.SIGTERM) == 130

    left = sorted(path.name for path in (tmp_path / "in").rglob("*") if not path.is_dir())
    assert left == ["notes.txt", "pipe.png"]  # the pipe cannot be read, and so not be compared
    placed = {path.relative_to(tmp_path / "sorted").as_posix() for path in
              (tmp_path / "sorted").rglob("*") if path.is_file()}  # fmt: skip
    assert placed == {
        "OK/before.png", "NG/deep/er/\u00e4 line\nbreak.png", "REVIEW/doubtful.png",
        "FAILED/text.png",
    }  # fmt: skip
    by_name = {image: (arguments, record) for arguments, image, record in notes(tmp_path)}
    arguments, record = by_name["deep/er/\u00e4 line\nbreak.png"]
    assert arguments == ["NG", str(tmp_path / "sorted/NG/deep/er/\u00e4 line\nbreak.png")]
    assert record == "deep/er/\u00e4 line\nbreak.png"
    log = [json.loads(line) for line in watch.said().splitlines() if line.startswith("{")]
    assert {line["image"] for line in log if line["event"] == "image"} == set(names)
    # `score` reads what the watch wrote, and has nothing to do but look for what is there.
    assert len(list(read_rows(tmp_path / "out"))) == 5
    asked = len(triton.requests)
    again = CliRunner().invoke(
        main, ["score", str(tmp_path / "in"), "--url", triton.url, "--no-report", "--heatmaps",
               "none", "--output", str(tmp_path / "out")]
    )  # fmt: skip
    assert again.exit_code == 3, again.output
    assert len(triton.requests) == asked


def test_records_are_of_the_published_schema(
    here: Callable[..., WatchedHere], arrive: Callable[..., Path]
) -> None:
    watch = here(fields=FieldRule({"lot": "7"}, PathPattern("{serial}.png")))
    arrive("4711.png")
    watch.wait_for_images("4711.png")
    schema = json.loads((Path(scoring.__path__[0]) / "record.schema.json").read_text())
    jsonschema.validate(watch.records()[0], schema)
    assert watch.records()[0]["fields"] == {"lot": "7", "serial": "4711"}


def test_a_file_that_is_written_slowly_is_taken_when_it_is_whole_and_a_renamed_one_at_once(
    here: Callable[..., WatchedHere],
    arrive: Callable[..., Path],
    save_image: SaveImage,
    tmp_path: Path,
) -> None:
    watch = here(settle_s=0.7)
    content = save_image(tmp_path / "slow.png", 250, (200, 150)).read_bytes()
    with (tmp_path / "in" / "slow.png").open("wb", buffering=0) as slow:
        for begin in range(0, len(content), len(content) // 5):
            slow.write(content[begin : begin + len(content) // 5])
            time.sleep(0.2)
    began = time.monotonic()
    arrive("fast.png")
    watch.wait_for_images("fast.png")
    assert time.monotonic() - began < 0.6
    watch.wait_for_images("fast.png", "slow.png")
    assert {record["image"]: record["verdict"] for record in watch.records()} == {
        "fast.png": "OK",
        "slow.png": "NG",
    }


def test_a_file_that_is_replaced_is_scored_again_and_one_that_is_touched_is_not(
    here: Callable[..., WatchedHere], arrive: Callable[..., Path]
) -> None:
    watch = here()
    path = arrive("part.png", 10)
    watch.wait_for_images("part.png")
    os.utime(path)
    arrive("other.png")
    watch.wait_for_images("part.png", "other.png")
    arrive("part.png", 250)
    watch.wait_for_images("part.png", "part.png", "other.png")
    assert watch.stop().scored == 3
    assert {row.image: row.verdict for row in read_rows(watch.output)} == {
        "part.png": "NG",
        "other.png": "OK",
    }
    assert json.loads((watch.output / "run.json").read_text())["images"] == 2


def test_a_later_release_judges_what_comes_later_and_nothing_twice(
    here: Callable[..., WatchedHere], arrive: Callable[..., Path], triton: FakeServer
) -> None:
    watch = here()
    arrive("early.png")
    watch.wait_for_images("early.png")
    assert watch.stop().scored == 1
    before = {row.image: row.release for row in read_rows(watch.output)}
    triton.promote(thresholds=Thresholds(0.3, 0.6))
    watch = here()
    arrive("late.png")
    watch.wait_for_images("early.png", "late.png")
    assert watch.stop().scored == 1
    after = {row.image: row.release for row in read_rows(watch.output)}
    assert after["early.png"] == before["early.png"] != after["late.png"]


def test_a_file_that_is_replaced_while_it_is_scored_gets_no_record_of_the_earlier_content(
    here: Callable[..., WatchedHere], triton: FakeServer, arrive: Callable[..., Path]
) -> None:
    triton.slow_s = 0.5
    watch = here()
    arrive("part.png", 10)
    wait_for(lambda: triton.under_way)
    arrive("part.png", 250)
    triton.slow_s = 0.0
    watch.wait_for_images("part.png")
    assert watch.records()[0]["verdict"] == "NG"


def test_a_server_that_goes_away_is_waited_for_and_no_image_is_lost(
    here: Callable[..., WatchedHere], triton: FakeServer, arrive: Callable[..., Path]
) -> None:
    watch = here(timeout=0.4)
    arrive("first.png")
    watch.wait_for_images("first.png")
    triton.stop()
    arrive("second.png")
    wait_for(lambda: "Paused" in watch.said(), 20)
    assert "for it to come back" in watch.said()
    triton.start()
    watch.wait_for_images("first.png", "second.png", seconds=30)
    assert {record["verdict"] for record in watch.records()} == {"OK"}


def test_a_server_that_is_not_there_yet_is_waited_for_for_as_long_as_was_said(
    dead_url: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    done = run(
        tmp_path / "in",
        "--url",
        dead_url,
        "--output",
        tmp_path / "out",
        "--patience",
        0.5,
        "--timeout",
        1,
    )
    assert done.exit_code == 4
    assert "Paused" in done.stderr
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_a_stop_finishes_what_is_under_way_and_the_rest_is_for_the_next_watch(
    here: Callable[..., WatchedHere], triton: FakeServer, arrive: Callable[..., Path]
) -> None:
    triton.slow_s = 0.4
    names = [f"{number}.png" for number in range(12)]
    for name in names:
        arrive(name)
    watch = here(concurrency=2)
    wait_for(lambda: triton.under_way)
    summary = watch.stop()
    assert 1 <= len(watch.images()) == summary.scored < len(names)
    assert len((watch.output / "results.csv").read_text().splitlines()) == summary.images + 1
    triton.slow_s = 0.0
    again = here()
    again.wait_for_images(*names)
    assert again.stop().images == len(names)


def test_results_can_be_read_from_the_first_moment_on(
    here: Callable[..., WatchedHere], arrive: Callable[..., Path]
) -> None:
    watch = here()
    arrive("a.png")
    watch.wait_for_images("a.png")
    drifted = CliRunner().invoke(main, ["drift", str(watch.output), str(watch.output)])
    assert drifted.exit_code == 0, drifted.output
    assert "unknown" in drifted.stdout  # of one image
    refused = CliRunner().invoke(main, ["report", str(watch.output)])
    assert refused.exit_code == 1
    assert "another run is writing there" in refused.stderr


def test_two_watches_do_not_write_to_one_folder(
    here: Callable[..., WatchedHere], triton: FakeServer, tmp_path: Path
) -> None:
    first = here()
    second = run(first.folder, "--url", triton.url, "--output", first.output)
    assert second.exit_code == 1
    assert f"process {os.getpid()}" in second.stderr


def test_a_network_share_is_polled(
    here: Callable[..., WatchedHere], arrive: Callable[..., Path], tmp_path: Path
) -> None:
    watch = here(poll_s=0.2)
    arrive("a.png")
    arrive("deep/b.png", 250)
    (tmp_path / "in" / ".hidden.png").write_text("x")
    watch.wait_for_images("a.png", "deep/b.png")
    assert watch.stop().images == 2
    assert watch.stop().images == 2


def test_commands_that_are_slow_or_fail_hold_up_no_image(
    here: Callable[..., WatchedHere], arrive: Callable[..., Path], tmp_path: Path
) -> None:
    hangs = (
        f"'{sys.executable}' -c 'import time; print(\"still here\", flush=True); time.sleep(60)'"
    )
    fails = f"'{sys.executable}' -c 'raise SystemExit(\"no broker\")'"
    commands = [VerdictCommand.parse("NG", hangs), VerdictCommand.parse("OK", fails)]
    watch = here(commands=commands, command_timeout=1.5, jobs=1)
    arrive("bad.png", 250)
    watch.wait_for_images("bad.png")
    began = time.monotonic()
    arrive("good.png", 10)
    watch.wait_for_images("bad.png", "good.png")
    assert time.monotonic() - began < 1.2
    wait_for(lambda: "took longer than 1.5 s" in watch.said() and "ended with 1" in watch.said())
    assert "still here" in watch.said()
    assert "no broker" in watch.said()


def test_what_a_kill_left_undone_of_commands_is_done_by_the_next_watch(
    start: Callable[..., Watched], arrive: Callable[..., Path], tmp_path: Path
) -> None:
    script = tmp_path / "held.sh"
    script.write_text(
        "#!/bin/sh\n"
        f'while [ "$DIFFUSIONAD_IMAGE" != a.png ] && [ ! -e "{tmp_path}/open" ]\n'
        "do sleep 0.1; done\n"
        'echo "$DIFFUSIONAD_IMAGE" >> "$0.done"\n'
    )
    script.chmod(0o755)
    options = ("--on-verdict", "ANY", str(script), "--command-jobs", "1")
    watch = start(*options)
    names = ("a.png", "b.png", "c.png")
    for count, name in enumerate(names, start=1):
        arrive(name)
        watch.wait_for_images(*names[:count])
    cursor = watch.output / ".diffusionad" / "watch.json"
    wait_for(lambda: json.loads(cursor.read_text())["done"])
    watch.stop(signal.SIGKILL)
    done = tmp_path / "held.sh.done"
    assert done.read_text() == "a.png\n"
    (tmp_path / "open").touch()
    again = start(*options)
    assert again.images() == list(names)
    wait_for(lambda: {*done.read_text().split()} == {*names})
    assert done.read_text().split().count("a.png") == 1


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_a_kill_at_any_moment_neither_loses_nor_repeats_an_image(
    start: Callable[..., Watched], triton: FakeServer, arrive: Callable[..., Path],
    tmp_path: Path, rounds: int,
) -> None:  # fmt: skip
    moment = random.Random(rounds)
    triton.slow_s = 0.02
    names: list[str] = []
    script = tmp_path / "note.sh"
    script.write_text('#!/bin/sh\necho "$DIFFUSIONAD_IMAGE" >> "$0.done"\n')
    script.chmod(0o755)
    done = tmp_path / "note.sh.done"
    sorting = ("--sort", "move", "--sort-into", tmp_path / "sorted")
    for number in range(rounds):
        watch = start(*sorting, "--on-verdict", "ANY", script)
        for image in range(15):
            names.append(f"{number}/{image:02}.png")
            arrive(names[-1], moment.randrange(250))
        time.sleep(moment.uniform(0.0, 0.8))
        watch.stop(signal.SIGKILL)
    watch = start(*sorting, "--on-verdict", "ANY", script)
    watch.wait_for_images(*names, seconds=60)
    wait_for(lambda: not [path for path in (tmp_path / "in").rglob("*") if path.is_file()], 30)
    wait_for(lambda: {*done.read_text().split()} == {*names}, 60)
    assert watch.stop() == 130
    verdicts = {record["image"]: record["verdict"] for record in watch.records()}
    placed = {
        path.relative_to(tmp_path / "sorted" / path.relative_to(tmp_path / "sorted").parts[0])
        .as_posix(): path.relative_to(tmp_path / "sorted").parts[0]
        for path in (tmp_path / "sorted").rglob("*.png")
    }  # fmt: skip
    assert placed == verdicts
    repeated = len(done.read_text().split()) - len(names)
    assert 0 <= repeated <= 4 * rounds  # the commands that were running, and had not been noted


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--sort", "move"), 2, "--sort and --sort-into go together"),
        (("--on-verdict", "NG", "no-such-program-here {path}"), 2, "there is no program"),
        (("--on-verdict", "NG", "'unbalanced"), 2, "No closing quotation"),
        (("--on-verdict", "BAD", "true"), 2, "'BAD' is not one of"),
        (("--settle", "-1"), 2, "--settle"),
        (("--metrics-port", "0"), 2, "--metrics-port"),
    ],
)
def test_wrong_usage_is_said(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "in").mkdir()
    done = run(tmp_path / "in", "--output", tmp_path / "out", *arguments)
    assert done.exit_code == code
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_or_is_the_results_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for folder, output, words in (
        ("none", "out", "there is no such folder to watch"),
        ("in", "in", "cannot be --output as well"),
    ):
        done = run(tmp_path / folder, "--output", tmp_path / output)
        assert done.exit_code == 1
        assert words in done.stderr


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(tmp_path / "in", "--output", tmp_path / "out", "--metrics-port", port)
    assert done.exit_code == 1
    assert f"--metrics-port {port}" in done.stderr
