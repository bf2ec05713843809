"""Images in archives are scored without unpacking, and hostile archives do no harm."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client.errors import ImageError, SourceError
from diffusionad_client.folders import Reason
from diffusionad_client.scoring.sources import find_images

FILES = {
    "b.png": b"b",
    "deep/a.png": b"a",
    "notes.txt": b"",
    "../out.png": b"",
    "/etc/x.png": b"",
    "__MACOSX/b.png": b"",
    "deep/._a.png": b"",
}


def pack(path: Path, files: dict[str, bytes]) -> str:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(path, {".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")) as packed_tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed_tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_images_in_an_archive_are_read_where_they_lie(tmp_path: Path, suffix: str) -> None:
    found: Any = find_images([pack(tmp_path / f"parts{suffix}", FILES)])
    assert [(image.name, image.read()) for image in found] == [
        ("b.png", b"b"),
        ("deep/a.png", b"a"),
    ]
    assert (found.root, found.count) == (str(tmp_path / f"parts{suffix}"), 2)
    assert found.left_out.counts == {
        Reason.NO_IMAGE: 1, Reason.OUTSIDE: 2, Reason.SYSTEM: 1, Reason.HIDDEN: 1,
    }  # fmt: skip
    assert os.listdir(tmp_path) == [f"parts{suffix}"]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz"])
def test_a_compressed_tar_is_read_from_its_start_as_often_as_it_is_gone_through(
    tmp_path: Path, suffix: str
) -> None:
    found: Any = find_images([pack(tmp_path / f"parts{suffix}", FILES)])
    for _ in range(2):
        assert [(image.name, image.read()) for image in found] == [
            ("b.png", b"b"),
            ("deep/a.png", b"a"),
        ]
    assert found.count is None
    assert os.listdir(tmp_path) == [f"parts{suffix}"]


def test_a_compressed_tar_that_breaks_off_is_a_sentence_after_its_whole_images(
    tmp_path: Path,
) -> None:
    content = {f"{n}.png": os.urandom(20_000) for n in range(10)}
    path = Path(pack(tmp_path / "a.tar.gz", content))
    path.write_bytes(path.read_bytes()[:100_000])
    images = iter(find_images([str(path)]))
    assert [next(images).read() for _ in range(3)] == list(content.values())[:3]
    with pytest.raises(SourceError, match=r"a\.tar\.gz: cannot be read as an archive"):
        list(images)


def test_the_names_of_several_archives_begin_with_theirs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in" / "one.zip", {"a.png": b"1"})
    two = pack(tmp_path / "two.tar", {"a.png": b"2"})
    found: Any = find_images([str(tmp_path / "in" / "*.zip"), two])
    assert [image.name for image in found] == ["in/one.zip/a.png", "two.tar/a.png"]
    assert [image.read() for image in found] == [b"1", b"2"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_scored_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("a.png", b"1")
        packed.writestr("a.png", b"2")
    found: Any = find_images([str(tmp_path / "a.zip")])
    assert [image.name for image in found] == ["a.png"]
    assert found.left_out.counts == {Reason.TWICE: 1}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_an_image_that_is_damaged_in_its_archive_fails_by_itself(
    tmp_path: Path, suffix: str
) -> None:
    content = bytes(range(256)) * 40
    path = Path(pack(tmp_path / f"parts{suffix}", {"a.png": content, "b.png": content}))
    images: Any = list(find_images([str(path)]))
    packed = bytearray(path.read_bytes())
    if suffix == ".zip":
        packed[60:80] = bytes(20)
    else:
        packed = packed[: 512 + len(content) // 2]
    path.write_bytes(packed)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read from its archive"):
        images[0].read()


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz")])
def test_a_link_in_a_tar_leads_nowhere(tmp_path: Path, name: str, mode: Any) -> None:
    with tarfile.open(tmp_path / name, mode) as packed:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    (image,) = find_images([str(tmp_path / name)])
    with pytest.raises(ImageError, match="only whole files are read"):
        image.read()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.zip", b"no archive", "cannot be read as an archive"),
        ("a.tar", b"no archive" * 100, "cannot be read as an archive"),
        ("a.tar.gz", b"no archive" * 100, "cannot be read as an archive"),
        ("a.tar.zst", b"", "such archives are not read"),
    ],
)
def test_what_is_no_archive_is_a_sentence(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said):
        find_images([str(tmp_path / name)])


def test_an_archive_without_images_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images there \(1 no images by their suffix"):
        find_images([pack(tmp_path / "a.zip", {"notes.txt": b""})])


def test_archives_and_files_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="archives are scored in a run of their own"):
        find_images([pack(tmp_path / "a.zip", FILES), str(tmp_path)])
