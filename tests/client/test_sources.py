from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client import sorting
from diffusionad_client.errors import SourceError
from diffusionad_client.folders import Reason
from diffusionad_client.scoring import local_files
from diffusionad_client.scoring.sources import find_images


def names(found: Any) -> tuple[str, ...]:
    return tuple(image.name for image in found)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    return make


def test_a_folder_is_searched_through_and_through_in_order(tree: Callable[..., Path]) -> None:
    root = tree("b.png", "a.JPG", "deep/er/c.tif", "deep/d.webp")
    assert names(find_images([str(root)])) == ("a.JPG", "b.png", "deep/d.webp", "deep/er/c.tif")


def test_hidden_files_are_left_out_and_other_files_are_counted(tree: Callable[..., Path]) -> None:
    root = tree("a.png", ".a.png", ".git/b.png", "notes.txt", "Thumbs.db")
    found = find_images([str(root)])
    assert names(found) == ("a.png",)
    assert found.left_out.counts == {Reason.HIDDEN: 2, Reason.NO_IMAGE: 2}


def test_one_file_is_named_by_itself(tree: Callable[..., Path]) -> None:
    root = tree("deep/a.png")
    found = find_images([str(root / "deep" / "a.png")])
    assert names(found) == ("a.png",)
    assert found.path("a.png") == root / "deep" / "a.png"


def test_a_named_file_is_taken_whatever_its_suffix(tree: Callable[..., Path]) -> None:
    root = tree("frame.raw")
    assert names(find_images([str(root / "frame.raw")])) == ("frame.raw",)


def test_a_glob_takes_the_files_it_matches(tree: Callable[..., Path]) -> None:
    root = tree("a/1.png", "b/2.png", "b/3.jpg")
    assert names(find_images([f"{root}/**/*.png"])) == ("a/1.png", "b/2.png")


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tree: Callable[..., Path]) -> None:
    root = tree("part[1].png", "part1.png")
    assert names(find_images([str(root / "part[1].png")])) == ("part[1].png",)


def test_an_image_named_twice_is_scored_once(tree: Callable[..., Path]) -> None:
    root = tree("a.png", "b.png")
    assert names(find_images([str(root), str(root / "a.png")])) == ("a.png", "b.png")


def test_a_list_names_paths_relative_to_the_working_directory(
    tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("in/1.png", "in/2.png")
    (root / "list.txt").write_text("in/2.png\n\n  in/1.png\n")
    monkeypatch.chdir(root)
    assert names(find_images([], lists=[Path("list.txt")])) == ("2.png", "1.png")


def test_a_listed_file_that_is_missing_is_left_to_the_run(tree: Callable[..., Path]) -> None:
    root = tree("1.png")
    (root / "list.txt").write_text(f"{root}/1.png\n{root}/gone.png\n")
    assert names(find_images([], lists=[root / "list.txt"])) == ("1.png", "gone.png")


def test_linked_folders_are_followed_once(tree: Callable[..., Path]) -> None:
    root = tree("data/a.png", "parts/b.png")
    os.symlink(root / "data", root / "parts" / "more")
    os.symlink(root / "parts", root / "parts" / "circle")
    assert names(find_images([str(root / "parts")])) == ("b.png", "more/a.png")


@pytest.mark.parametrize("source", ["none", "none.png", "*.gif"])
def test_a_source_that_is_not_there_is_named(tmp_path: Path, source: str) -> None:
    with pytest.raises(SourceError, match="no "):
        find_images([str(tmp_path / source)])


def test_a_folder_without_images_says_what_images_are(tree: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match=r"\.jpeg"):
        find_images([str(tree("notes.txt"))])


def test_pictures_in_the_output_folder_are_left_out_of_globs_and_lists_too(
    tree: Callable[..., Path],
) -> None:
    root = tree("a.png", "out/heatmaps/a.png.png", "out/anomaly_maps/deep/a.png.png", "out/b.png")
    assert names(find_images([f"{root}/**/*.png"], skip=root / "out")) == ("a.png", "out/b.png")
    (root / "list.txt").write_text("\n".join(map(str, sorted(root.rglob("*.png")))))
    listed = find_images([], lists=[root / "list.txt"], skip=root / "out")
    assert names(listed) == ("a.png", "out/b.png")


def test_an_output_folder_around_the_images_hides_none_of_them(tree: Callable[..., Path]) -> None:
    root = tree("in/a.png")
    assert names(find_images([str(root / "in")], skip=root)) == ("a.png",)
    assert names(find_images([f"{root}/in/*.png"], skip=root)) == ("a.png",)


def test_images_in_the_very_folder_of_the_results_are_refused(tree: Callable[..., Path]) -> None:
    root = tree("a.png")
    os.symlink(root, root.with_name("link"))
    with pytest.raises(SourceError, match="choose another output folder"):
        find_images([str(root)], skip=root.with_name("link"))


def test_results_of_other_runs_are_left_out_and_counted(tree: Callable[..., Path]) -> None:
    root = tree("a.png", "old/heatmaps/a.png.png", "old/results.jsonl", "old/run.json")
    found = find_images([str(root)])
    assert names(found) == ("a.png",)
    assert found.left_out.counts == {Reason.OURS: 1}


def test_a_list_from_a_windows_editor_is_read(tree: Callable[..., Path]) -> None:
    root = tree("1.png")
    (root / "list.txt").write_bytes(b"\xef\xbb\xbf" + str(root / "1.png").encode() + b"\r\n")
    assert find_images([], lists=[root / "list.txt"]).path("1.png").is_file()


def test_a_list_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"list\.txt"):
        find_images([], lists=[tmp_path / "list.txt"])


def test_a_search_through_more_than_is_kept_finds_the_same(
    tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(*(f"{n % 3}/{n:03}.png" for n in range(90)), "2/odd\nname.png")
    (root / "list.txt").write_text("\n".join(map(str, sorted(root.rglob("*7.png")))))
    ways: list[Any] = [
        ([str(root)], []),
        ([f"{root}/*/0*.png", str(root / "1")], []),
        ([], [root / "list.txt", root / "list.txt"]),
    ]
    for sources, lists in ways:
        kept = find_images(sources, lists=lists)
        with monkeypatch.context() as patched:
            patched.setattr(local_files, "KEPT", 5)
            patched.setattr(sorting, "IN_MEMORY", 7)
            again: Any = find_images(sources, lists=lists)
            assert names(again) == names(kept) == names(again)
            assert (again.count, again.root) == (kept.count, kept.root)
        for listed in again.again.lists:
            listed.close()


PEAK = """
import resource, sys
from diffusionad_client.scoring.sources import find_images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = find_images([sys.argv[1]])
assert sum(1 for _ in found) == found.count
print(found.count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
@pytest.mark.parametrize("images", [1_000_000])
def test_the_memory_for_a_million_images_is_that_for_a_few(tmp_path: Path, images: int) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    first = folder / "image.png"
    first.write_bytes(b"")
    for number in range(images - 1):
        name = folder / f"camera-1_part-{number:09}.png"
        if number % 30_000 == 0:  # file systems bound the links to one file
            name.write_bytes(b"")
            first = name
        else:
            os.link(first, name)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=True
    )
    count, grown = map(int, done.stdout.split())
    assert count == images
    assert grown < 100_000  # KiB
