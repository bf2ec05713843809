"""A run on the workers of a Ray cluster gives what a run in one process gives."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from waiting import wait_for

from diffusionad_client import Client, Connection
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.cli import main
from diffusionad_client.errors import SourceError
from diffusionad_client.scoring.board import Board
from diffusionad_client.scoring.done import Done, Judging
from diffusionad_client.scoring.on_ray import blocks
from diffusionad_client.scoring.patience import StoppedError
from diffusionad_client.scoring.ray_worker import COLUMN, Came, Job, Worker
from diffusionad_client.scoring.results import read_rows
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.score_one import Recipe
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.scoring.sources import SourceImage, find_images
from diffusionad_client.scoring.work import Task, Work
from diffusionad_client.testing import FakeServer, Fault

ray = pytest.importorskip(
    "ray", reason="Ray is not installed: pip install 'diffusionad-client[ray]'"
)

SaveImage = Callable[..., Path]
OF_THE_MOMENT = ("timings", "scored_at", "request_id", "server")


def score(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["score", *map(str, arguments)], catch_exceptions=False)


def program(*arguments: object) -> list[str]:
    """Score in a process of its own: Ray starts threads and warns of much."""
    words = [sys.executable, "-m", "diffusionad_client", "score", *map(str, arguments)]
    return [*words, "--engine", "ray", "--ray-workers", "2", "--no-report"]


def on_ray(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = program(*arguments)
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=400)


def of_no_moment(row: Row) -> str:
    """A row without what differs from one moment to the next."""
    return json.dumps({k: v for k, v in row.to_document().items() if k not in OF_THE_MOMENT})


def content(output: Path) -> list[str]:
    return sorted(map(of_no_moment, read_rows(output)))


@pytest.mark.long
def test_what_is_missing_is_done_by_workers_on_two_servers_as_one_process_does_it(
    two_tritons: tuple[FakeServer, FakeServer], tmp_path: Path, save_image: SaveImage
) -> None:
    parts = tmp_path / "parts"
    for number in range(20):
        save_image(parts / f"{number:03}.png", number)
    (parts / os.fsdecode(b"not-utf8-\xff.png")).write_text("no image")
    command = (parts, "--url", ",".join(server.url for server in two_tritons), "--no-report")
    begun = (*command, "--output", tmp_path / "ray")
    assert score(*begun).exit_code == 3
    asked = sum(server.counts["ModelInfer"] for server in two_tritons)
    for number in range(20, 160):  # more than a worker is given at once
        save_image(parts / f"{number:03}.png", number)
    save_image(parts / "003.png", 255)
    done = on_ray(*begun)
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("161 images")
    assert "141 of them now, 20 before" in done.stdout
    assert all(server.counts["ModelInfer"] for server in two_tritons)
    assert sum(server.counts["ModelInfer"] for server in two_tritons) == asked + 141
    alone = score(*command, "--output", tmp_path / "alone")
    assert alone.exit_code == 3
    assert content(tmp_path / "ray") == content(tmp_path / "alone")
    added = (tmp_path / "ray" / "results.jsonl").read_text().splitlines()[21:]
    wanted = ["003.png", *(f"{number:03}.png" for number in range(20, 160))]
    assert [json.loads(line)["image"] for line in added] == wanted  # in the order of the source
    pictures = {p.relative_to(tmp_path / "alone") for p in (tmp_path / "alone").rglob("*.png")}
    assert {p.relative_to(tmp_path / "ray") for p in (tmp_path / "ray").rglob("*.png")} == pictures
    for name in pictures:
        same = (tmp_path / "alone" / name).read_bytes()
        assert (tmp_path / "ray" / name).read_bytes() == same
    assert [line for line in done.stderr.splitlines() if not line.startswith("Scoring: ")] == []


@pytest.mark.long
def test_a_server_that_goes_away_pauses_the_workers_and_an_interrupt_stops_them(
    triton: FakeServer, tmp_path: Path, save_image: SaveImage
) -> None:
    for number in range(400):
        save_image(tmp_path / "parts" / f"{number:03}.png", number % 256, size=(8, 8))
    triton.on_call = lambda call: time.sleep(0.05)
    command = (tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out")
    part = tmp_path / "out" / "results.jsonl.part"
    said = tmp_path / "said"
    words = program(*command, "--timeout", "1")
    with said.open("w") as stderr, subprocess.Popen(words, stderr=stderr) as process:
        try:
            wait_for(lambda: part.exists() and part.stat().st_size, 300)
            triton.fail(Fault.STOPPING)
            wait_for(lambda: "Paused: " in said.read_text(), 30)
            triton.heal()
            wait_for(lambda: "Going on after" in said.read_text(), 30)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert said.read_text().count("Paused: ") == 1
    assert "the same command goes on" in said.read_text()
    kept = part.read_text().splitlines()
    assert 0 < len(kept) < 400
    assert all(json.loads(line)["error"] is None for line in kept)
    triton.on_call = None
    asked = triton.counts["ModelInfer"]
    assert score(*command).exit_code == 0
    assert triton.counts["ModelInfer"] == asked + 400 - len(kept)


@pytest.mark.long
def test_a_server_that_stays_away_and_a_cluster_that_is_not_there_are_sentences(
    triton: FakeServer, tmp_path: Path, dead_url: str, save_image: SaveImage
) -> None:
    for number in range(20):
        save_image(tmp_path / "parts" / f"{number:03}.png", number)
    command = (tmp_path / "parts", "--url", triton.url, "--output", tmp_path / "out")
    lost = on_ray(*command, "--ray-address", dead_url)
    assert lost.returncode == 1
    assert lost.stderr.startswith(f"Error: no Ray at {dead_url}: ")
    assert "Traceback" not in lost.stderr

    def stop(call: Any) -> None:
        if call.method == "ModelInfer":
            triton.fail(Fault.STOPPING)

    triton.on_call = stop
    gone = on_ray(*command, "--patience", "1", "--timeout", "2")
    assert gone.returncode == 4, gone.stderr
    assert "waited 1.0 s for it" in gone.stderr
    assert "the same command goes on" in gone.stderr
    assert "Traceback" not in gone.stderr


class Remote:
    """Calls what Ray would call in another process."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class BoardHere:
    def __init__(self) -> None:
        board = Board()
        for name in ("tell", "take", "stop", "is_stopped"):
            setattr(self, name, Remote(getattr(board, name)))


def test_a_worker_does_what_it_is_sent_and_begins_nothing_once_it_is_stopped(
    triton: FakeServer, tmp_path: Path, save_image: SaveImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get", lambda came: came)
    for number in range(20):
        save_image(tmp_path / "parts" / f"{number:03}.png", 12 * number)
    (tmp_path / "parts" / "text.png").write_text("no image")
    images = list(find_images([str(tmp_path / "parts")]))
    judging = Judging("a" * 64, Thresholds(0.3, 0.6), Settings(output=Path()).digest)
    work = Work(Recipe(), judging)
    with Client(triton.url, "screw") as client:
        alone = {image.name: work.do(Task(image), client.inspect) for image in images}
    earlier = Done.of([alone["000.png"].row])  # by other settings
    same = Done.of([replace(alone["001.png"].row, settings=judging.settings)])
    tasks = [Task(image, earlier.see(image.name) or same.see(image.name)) for image in images]
    board: Any = BoardHere()
    worker = Worker(Job(Connection(triton.url), "screw", work, 3, 5.0), board)

    def came() -> list[tuple[str, Came]]:
        (block,) = blocks(tasks)
        tables = list(worker(block))
        assert len(tables) == 2  # what is done is sent before all is
        return [pickle.loads(each) for table in tables for each in table[COLUMN].to_pylist()]

    found = dict(came())
    assert list(found) == [image.name for image in images]
    assert found.pop("001.png") is None
    for name, scored in found.items():
        assert of_no_moment(scored.row) == of_no_moment(alone[name].row)
        assert scored.pictures == alone[name].pictures
    board.stop.remote()
    wait_for(lambda: worker.is_stopped)
    assert all(isinstance(each, StoppedError) for _, each in came())


def test_images_of_a_tar_and_of_a_bucket_can_be_read_by_other_machines(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        member = tarfile.TarInfo("a.png")
        member.size = 3
        packed.addfile(member, io.BytesIO(b"abc"))
    for source in (tmp_path / "a.tar", f"file://{tmp_path}/parts"):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / "a.png").write_bytes(b"abc")
        (block,) = blocks(map(Task, find_images([str(source)])))
        (task,) = map(pickle.loads, block[COLUMN].to_pylist())
        assert (task.name, task.image.read()) == ("a.png", b"abc")


def test_an_image_that_only_this_process_can_read_is_a_sentence(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as packed:
        packed.addfile(tarfile.TarInfo("a.png"))
    (image,) = find_images([str(tmp_path / "a.tgz")])
    with pytest.raises(SourceError, match="can only be read from its start"):
        list(blocks([Task(image)]))
    lock = threading.Lock()  # which cannot be sent

    def read() -> bytes:
        with lock:
            return b""

    with pytest.raises(SourceError, match=r"a\.png: only this process can read it"):
        list(blocks([Task(SourceImage("a.png", read))]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ray-workers", "2"), "of use with --engine ray"),
        (("--ray-address", "auto"), "of use with --engine ray"),
        (("--engine", "ray", "--ray-address", "auto", "--repository", "."), "name the servers"),
    ],
)
def test_options_of_ray_that_do_not_fit_are_wrong_usage(
    tmp_path: Path, save_image: SaveImage, options: tuple[str, ...], said: str
) -> None:
    image = save_image(tmp_path / "a.png")
    result = score(image, "--output", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_of_workers_that_all_notice_the_same_one_is_heard() -> None:
    board = Board()
    for worker in range(3):
        board.tell(f"Paused: server {worker} does not answer")
    for worker in range(3):
        board.tell(f"Going on after {worker} s")
    assert board.take() == ["Paused: server 0 does not answer", "Going on after 0 s"]
    assert board.take() == []
