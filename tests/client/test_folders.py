"""One walk through folders, with one set of rules."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from diffusionad_client import folders
from diffusionad_client.artifacts import bundle
from diffusionad_client.errors import SourceError
from diffusionad_client.folders import LeftOut, Reason
from diffusionad_client.scoring import results


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    return make


def search(root: Path) -> tuple[list[str], LeftOut]:
    left_out = LeftOut()
    found = [os.path.relpath(p, root) for p in folders.find_images(root, left_out)]
    return [name.replace(os.sep, "/") for name in found], left_out


def test_every_depth_is_searched_and_all_is_sorted(tree: Callable[..., Path]) -> None:
    root = tree("b.png", "a.png", "day1/z.png", "day0/3/x.png", "day0/y.png", "day10/w.png")
    names, _ = search(root)
    assert names == ["a.png", "b.png", "day0/y.png", "day0/3/x.png", "day1/z.png", "day10/w.png"]


def test_a_suffix_has_no_case(tree: Callable[..., Path]) -> None:
    names = ["1.PNG", "2.Jpg", "3.TIFF", "4.gif", "5.PPM", "6.pgm", "7.pbm", "8.webp", "9.BMP"]
    assert search(tree(*names))[0] == names


def test_what_is_left_out_is_counted_by_reason(tree: Callable[..., Path]) -> None:
    root = tree(
        "a.png", "._a.png", ".DS_Store", ".git/b.png", "notes.txt", "@eaDir/a.png/thumb.jpg"
    )
    names, left_out = search(root)
    assert names == ["a.png"]
    assert left_out.counts == {Reason.HIDDEN: 3, Reason.NO_IMAGE: 1, Reason.SYSTEM: 1}
    assert left_out.described() == [
        "1 no images by their suffix: notes.txt",
        "3 hidden: .DS_Store, ._a.png, .git",
        "1 folders of the system: @eaDir",
    ]


def test_of_many_files_that_are_left_out_a_few_are_named(tree: Callable[..., Path]) -> None:
    _, left_out = search(tree(*(f"{i}.txt" for i in range(8))))
    assert left_out.described() == [
        "8 no images by their suffix: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 3 more"
    ]


def test_links_that_lead_round_do_not_hang(tree: Callable[..., Path]) -> None:
    root = tree("a/1.png", "b/2.png")
    os.symlink(root, root / "a" / "up")
    os.symlink(root / "b", root / "a" / "more")
    os.symlink(root / "self.png", root / "self.png")
    names, left_out = search(root)
    assert names == ["a/1.png", "b/2.png"]
    assert left_out.counts == {Reason.AGAIN: 2, Reason.SPECIAL: 1}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_regular_file_is_left_out(
    tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("a.png")
    os.mkfifo(root / "pipe.png")
    os.symlink(root / "nowhere", root / "dead.png")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
        names, left_out = search(root)
    assert names == ["a.png"]
    assert left_out.counts == {Reason.SPECIAL: 3}


def test_images_come_before_all_folders_are_searched(
    tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(*(f"day{day}/a.png" for day in range(9)))
    opened: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(
        folders.os, "scandir", lambda folder: opened.append(str(folder)) or scandir(folder)
    )
    assert len(list(islice(folders.find_images(root), 2))) == 2
    assert len(opened) == 3


def test_results_of_ours_are_no_images_to_take(tree: Callable[..., Path]) -> None:
    scored = (results.RESULTS_JSONL, results.RUN_JSON, "heatmaps/a.png.png")
    exported = (bundle.METADATA_FILE, bundle.REFERENCES_FILE, bundle.ROI_FILE)
    trained = ("config.json", "run.json", "samples/step-1.png")
    made = {"scored": scored, "exported": exported, "trained": trained}
    root = tree("a.png", *(f"{folder}/{name}" for folder, names in made.items() for name in names))
    names, left_out = search(root)
    assert names == ["a.png"]
    assert left_out.counts == {Reason.OURS: 3}


def test_a_folder_that_is_skipped_goes_without_saying(tree: Callable[..., Path]) -> None:
    root = tree("a.png", "out/b.png")
    left_out = LeftOut()
    skip = os.path.realpath(root / "out")
    assert len(list(folders.find_images(root, left_out, skip=lambda real: real == skip))) == 1
    assert not left_out.counts


def test_names_that_are_not_utf_8_are_found(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xe4.png"
    try:
        with open(name, "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert [os.fsencode(path) for path in folders.find_images(tmp_path)] == [name]


@pytest.mark.parametrize("folder", ["nowhere", "a\0b", "file"])
def test_a_folder_that_cannot_be_searched_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="cannot be searched"):
        list(folders.find_images(f"{tmp_path}/{folder}"))
