"""A soak: what it notices, and what it says of an hour that went well."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from waiting import wait_for

from diffusionad_client import Client
from diffusionad_client.cli import main
from diffusionad_client.testing import FakeCategory, FakeServer
from diffusionad_tools.commands.soak import soak as soak_command
from diffusionad_tools.soak import loads
from diffusionad_tools.soak import run as soak_run
from diffusionad_tools.soak.memory import Growth, Memory, MemorySample, growth
from diffusionad_tools.soak.run import SoakReport, SoakSettings, soak
from diffusionad_tools.soak.tally import Expected, GivenAnswer, SoakTally

MIB = 1 << 20
RELEASE = "r1"
GOLDEN = {
    (RELEASE, "a.png"): Expected(0.25, "OK", 0.3, 0.6),
    (RELEASE, "b.png"): Expected(0.3, "REVIEW", 0.3, 0.6),
}


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "_PAUSE_S", 0.01)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name)
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(FakeCategory(score=0.25, size=32)) as started:
        yield started


def run_until(load: loads.Load, tally: SoakTally, enough: str, number: int = 6) -> None:
    with loads.running([load], tally):
        wait_for(lambda: tally.counts[enough] + sum(tally.broken.values()) >= number, 20)


# What is wrong or lost


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        (GivenAnswer("a.png", RELEASE, 0.25, "OK"), False),
        (GivenAnswer("a.png", RELEASE, 0.250001, "OK"), False),
        (GivenAnswer("a.png", RELEASE, 0.2502, "OK"), True),
        (GivenAnswer("a.png", RELEASE, float("nan"), "OK"), True),
        (GivenAnswer("a.png", RELEASE, 0.25, "NG"), True),
        (GivenAnswer("a.png", "r2", 0.25, "OK"), True),
        (GivenAnswer("c.png", RELEASE, 0.25, "OK"), True),
        (GivenAnswer("b.png", RELEASE, 0.299999, "OK"), False),  # rounding decides
    ],
)
def test_an_answer_is_wrong_that_is_not_the_golden_runs(answer: GivenAnswer, broken: bool) -> None:
    tally = SoakTally(GOLDEN)
    tally.answered("inline", answer)
    assert tally.counts["inline"] == 1
    assert bool(tally.broken["wrong"]) is broken


def results(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_an_image_of_a_folder_is_lost_without_a_row_or_with_an_error(tmp_path: Path) -> None:
    good = {"image": "a.png", "score": 0.25, "verdict": "OK", "release": RELEASE, "error": None}
    bad = {"image": "b.png", "error": {"type": "ServerGoneError", "message": "gone"}}
    tally = SoakTally(GOLDEN)
    loads.check_results(results(tmp_path / "one", good), {"a.png", "b.png"}, tally)
    loads.check_results(results(tmp_path / "two", good, bad), {"a.png", "b.png"}, tally)
    loads.check_results(tmp_path / "none", {"a.png"}, tally)
    assert tally.counts["from folders"] == 2
    assert tally.broken == {"lost": 3}
    assert "b.png is not in one" in tally.examples["lost"][0]
    assert "ServerGoneError" in tally.examples["lost"][1]


def test_a_score_that_changes_while_a_line_is_served_is_noticed(
    server: FakeServer, images: dict[str, Path]
) -> None:
    with Client(server.url, "screw") as client:
        release = client.inspect(images["a.png"]).release
        good = Expected(0.25, "OK", 0.3, 0.6)
        tally = SoakTally({(release, name): good for name in images})
        run_until(loads.inline(client, images, tally), tally, "inline")
        assert not tally.broken
        server.categories["screw"].score = 0.2501
        run_until(loads.inline(client, images, tally), tally, "nothing", number=2)
    assert tally.broken["wrong"] >= 2
    assert tally.counts["inline asked"] == tally.counts["inline"]


def test_a_part_without_an_answer_is_lost(server: FakeServer, images: dict[str, Path]) -> None:
    tally = SoakTally(GOLDEN)
    with Client(server.url, "screw", timeout=0.3) as client:
        server.stop()
        run_until(loads.inline(client, images, tally), tally, "inline", number=1)
    assert tally.broken["lost"] >= 1


@pytest.mark.usefixtures("hurry")
def test_nonsense_is_refused_or_the_promise_is_broken(server: FakeServer) -> None:
    tally = SoakTally({})
    with Client(server.url, "screw", timeout=5) as client:
        run_until(loads.nonsense(client, tally), tally, "refused", number=8)
        assert not tally.broken
        lax = replace_inspect(client)
        run_until(loads.nonsense(lax, tally), tally, "nothing", number=1)
    assert tally.broken["taken"] >= 1


def replace_inspect(client: Client) -> Any:
    """A client that scores whatever it is given."""

    class Lax:
        def inspect(self, file: bytes, **options: Any) -> Any:
            return client.inspect(np.zeros((8, 8, 3), np.uint8))

    return Lax()


def test_a_load_that_ends_by_itself_is_told() -> None:
    def ends(stop: threading.Event) -> None:
        raise ZeroDivisionError("a bug")

    tally = SoakTally({})
    with loads.running([ends], tally):
        pass
    assert tally.examples["ended"] == ["a load ended with ZeroDivisionError: a bug"]


# Memory


def samples(*lives: list[float]) -> list[MemorySample]:
    found = []
    for life, values in enumerate(lives):
        found += [MemorySample(len(found) + i, life, int(v * MIB)) for i, v in enumerate(values)]
    return found


def test_memory_that_is_filled_at_the_start_of_each_life_is_flat() -> None:
    rises = [50.0, 80.0, 95.0, *[100 + (-1) ** i for i in range(17)]]
    found = growth(samples(rises, rises, rises), 60)
    assert found.flat
    assert abs(found.mib) < 2


def test_memory_that_grows_in_every_life_is_not_flat_though_restarts_hide_it() -> None:
    leaks = [100.0 + i for i in range(20)]
    found = growth(samples(leaks, leaks, leaks), 60)
    assert not found.flat
    assert found.mib_per_hour == pytest.approx(3600)
    assert found.mib == pytest.approx(60)


def test_memory_is_that_of_living_processes() -> None:
    memory = Memory()
    for at in range(10):
        memory.add("models", at, 1, 100 * MIB if at % 2 else 0)
    assert memory.growths(10)["models"] == Growth(100, 0, 0, flat=True)


# All of it


def report(**changes: Any) -> SoakReport:
    flat = {"client": Growth(85, 0.5, 0.5, flat=True)}
    whole = SoakReport(seconds=60, counts={"inline": 9}, broken={}, examples={}, memory=flat)
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "Every promise was kept."),
        ({"broken": {"lost": 1}, "examples": {"lost": ["a.png"]}}, 1, "lost: BROKEN"),
        ({"memory": {"models": Growth(900, 99, 99, flat=False)}}, 1, "NO"),
    ],
)
def test_the_command_ends_with_1_if_a_promise_was_broken(
    images: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any], code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(soak_run, "soak", lambda *args, **options: report(**changes))
    file = tmp_path / "soak.json"
    result = command(tmp_path / "images", "--report", file)
    assert result.exit_code == code, result.output
    assert said in result.output
    assert json.loads(file.read_text())["kept"] is (code == 0)


def command(*arguments: object) -> Result:
    options = ("--repository", "nowhere", *arguments)
    return CliRunner().invoke(soak_command, list(map(str, options)))


def test_a_folder_without_images_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["soak", str(tmp_path), "--repository", str(tmp_path)])
    assert result.exit_code == 1
    assert "no image is in this folder" in result.stderr


@pytest.mark.server
@pytest.mark.long
def test_a_soak_keeps_its_promises_and_tells_of_the_one_score_that_was_made_wrong(
    encoded_repository: Path, handmade_model: Any, tmp_path: Path
) -> None:
    pictures = []
    for number, picture in enumerate(handmade_model().images(3)):
        pictures.append(tmp_path / f"{number}.png")
        Image.fromarray(picture).save(pictures[-1])
    wrong: list[tuple[str, str]] = []

    def disturb(golden: dict[tuple[str, str], Expected]) -> None:
        assert len({release for release, _ in golden}) == 2
        wrong.append(next(iter(golden)))
        golden[wrong[0]] = replace(golden[wrong[0]], score=golden[wrong[0]].score + 0.01)

    settings = SoakSettings(seconds=12, promote_every=3, restart_every=5, sample_every=0.2)
    before = {p: p.stat().st_mtime for p in encoded_repository.rglob("*")}
    begun = time.monotonic()
    found = soak(encoded_repository, pictures, settings, lambda line: None, disturb=disturb)
    assert time.monotonic() - begun >= 12
    assert set(found.broken) == {"wrong"}, found.examples
    assert all(wrong[0][1] in example for example in found.examples["wrong"])
    assert found.counts["promotions"] >= 2
    assert found.counts["restarts"] >= 1
    assert found.counts["folders"] >= 1
    assert found.counts["refused"] >= 1
    assert found.counts["inline"] == found.counts["inline asked"] > 0
    assert set(found.memory) == {"client", "tritonserver", "models"}
    assert {p: p.stat().st_mtime for p in encoded_repository.rglob("*")} == before
