"""Files find their place by verdict; nothing is written over, lost, or moved unjudged."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for
from watched import WatchedHere

from diffusionad_client.scoring.row import Row
from diffusionad_client.testing import FakeServer
from diffusionad_client.watching import placing
from diffusionad_client.watching.placing import Way, place
from diffusionad_client.watching.sorter import Sorter, Sorting
from diffusionad_client.watching.verdict_commands import VerdictCommand

SaveImage = Callable[..., Path]


def file(path: Path, content: str) -> tuple[Path, str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path, hashlib.sha256(content.encode()).hexdigest()


@pytest.fixture(params=["the same disk", "another disk"])
def into(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A place for sorted files."""
    if request.param == "the same disk":
        yield tmp_path / "sorted"
        return
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "sorted"


def test_a_move_leaves_one_file_and_is_done_once_however_often(into: Path, tmp_path: Path) -> None:
    source, sha256 = file(tmp_path / "in" / "a.png", "a")
    os.utime(source, (1, 1))
    target = into / "NG" / "a.png"
    for _ in range(2):
        assert place(source, target, sha256, Way.MOVE) == target
        assert not source.exists()
        assert target.read_text() == "a"
    assert target.stat().st_mtime == 1
    assert [path.name for path in target.parent.iterdir()] == ["a.png"]


def test_a_move_that_was_killed_before_its_end_is_ended(into: Path, tmp_path: Path) -> None:
    source, sha256 = file(tmp_path / "in" / "a.png", "a")
    file(into / "a.png", "a")
    file(into / f".{sha256[:8]}.part", "torn")
    assert place(source, into / "a.png", sha256, Way.MOVE) == into / "a.png"
    assert not source.exists()


def test_a_second_file_of_a_name_gets_one_of_its_own(into: Path, tmp_path: Path) -> None:
    file(into / "a.png", "earlier")
    source, sha256 = file(tmp_path / "in" / "a.png", "later")
    placed = place(source, into / "a.png", sha256, Way.MOVE)
    assert placed == into / f"a.{sha256[:8]}.png"
    assert (into / "a.png").read_text() == "earlier"
    assert placed.read_text() == "later"


@pytest.mark.parametrize("way", list(Way))
def test_what_was_replaced_since_it_was_judged_stays(into: Path, tmp_path: Path, way: Way) -> None:
    source, _ = file(tmp_path / "in" / "a.png", "another")
    judged = hashlib.sha256(b"judged").hexdigest()
    assert place(source, into / "a.png", judged, way) is None
    assert source.read_text() == "another"
    assert not (into / "a.png").exists()


def test_what_is_replaced_while_it_is_moved_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, sha256 = file(tmp_path / "in" / "a.png", "judged")
    link = os.link

    def link_late(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        other, _ = file(tmp_path / "b.png", "next part")
        other.replace(source)

    monkeypatch.setattr(placing.os, "link", link_late)
    assert place(source, tmp_path / "NG" / "a.png", sha256, Way.MOVE) == tmp_path / "NG" / "a.png"
    assert source.read_text() == "next part"
    assert (tmp_path / "NG" / "a.png").read_text() == "judged"


def test_a_link_leaves_the_file_where_it_is(into: Path, tmp_path: Path) -> None:
    source, sha256 = file(tmp_path / "in" / "a.png", "a")
    for _ in range(2):
        assert place(source, into / "OK" / "a.png", sha256, Way.LINK) == into / "OK" / "a.png"
    assert source.read_text() == (into / "OK" / "a.png").read_text() == "a"


def test_a_link_that_is_moved_leaves_what_it_leads_to(into: Path, tmp_path: Path) -> None:
    real, sha256 = file(tmp_path / "archive" / "a.png", "a")
    source = tmp_path / "in" / "a.png"
    source.parent.mkdir()
    source.symlink_to(real)
    place(source, into / "a.png", sha256, Way.MOVE)
    assert not os.path.lexists(source)
    assert real.read_text() == (into / "a.png").read_text() == "a"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_place_that_refuses_holds_up_the_sorting_alone_until_it_is_seen_to(
    tiny_disk: Path, triton: FakeServer, save_image: SaveImage, tmp_path: Path, trouble: str
) -> None:
    ballast = tiny_disk / "ballast"
    if trouble == "full":
        ballast.write_bytes(b"x" * 64 * 1024)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    script = tmp_path / "note.sh"
    script.write_text('#!/bin/sh\necho "$DIFFUSIONAD_PATH" >> "$0.done"\n')
    script.chmod(0o755)
    watch = WatchedHere(
        tmp_path,
        triton.url,
        sorting=Sorting(Way.MOVE, tiny_disk),
        commands=[VerdictCommand.parse("ANY", str(script))],
    )
    for number in range(3):
        save_image(watch.folder / f"{number}.png", 250, (400, 300))
    watch.wait_for_images("0.png", "1.png", "2.png")
    wait_for(lambda: "Sorting waits" in watch.said())
    done = tmp_path / "note.sh.done"
    wait_for(lambda: done.exists() and len(done.read_text().splitlines()) == 3)  # all the same
    assert len(list(watch.folder.iterdir())) == 3
    if trouble == "full":
        ballast.unlink()
    else:
        subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)
    wait_for(lambda: not list(watch.folder.iterdir()))
    assert "Sorting goes on" in watch.said()
    assert len(list((tiny_disk / "NG").glob("*.png"))) == 3
    watch.stop()


def test_what_is_not_sorted_yet_is_found_by_the_next_watch(
    triton: FakeServer, save_image: SaveImage, tmp_path: Path
) -> None:
    first = WatchedHere(tmp_path, triton.url)
    save_image(first.folder / "a.png", 250)
    first.wait_for_images("a.png")
    first.stop()
    second = WatchedHere(tmp_path, triton.url, sorting=Sorting(Way.MOVE, tmp_path / "sorted"))
    wait_for((tmp_path / "sorted" / "NG" / "a.png").exists)
    second.stop()
    assert second.images() == ["a.png"]


def test_a_name_that_the_place_cannot_hold_is_said_and_holds_up_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    sorter = Sorter(tmp_path, Sorting(Way.MOVE, tmp_path / "sorted"), said.append)
    _, sha256 = file(tmp_path / "a.png", "a")
    file(tmp_path / "sorted" / "OK" / "deep", "a file where a folder should be")
    file(tmp_path / "deep" / "b.png", "a")
    refused = sorter.put_row(Row(image="deep/b.png", verdict="OK", sha256=sha256))
    placed = sorter.put_row(Row(image="a.png", verdict="OK", sha256=sha256))
    assert placed.result(5) == tmp_path / "sorted" / "OK" / "a.png"
    assert refused.result(5) is None
    assert "Not sorted: deep/b.png" in said[0]
    assert (tmp_path / "deep" / "b.png").exists()
    assert sorter.finish(1) == 0
