"""Which images to score: from files, folders, glob patterns and lists of paths.

Every image gets a name: its path relative to the folder that all sources have
in common. Names are unique, hold no "..", and name the files made of an image.
"""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from diffusionad_client import folders, images, regular_files
from diffusionad_client.errors import SourceError
from diffusionad_client.files import PART
from diffusionad_client.folders import IMAGE_SUFFIXES, LeftOut
from diffusionad_client.scoring.results import PICTURE_FOLDERS

STDIN = Path("-")  # as a list
_READ_S = 30.0  # for one file, unless the run says otherwise


@dataclass(frozen=True)
class SourceImage:
    """One image to score: its name, and how to get its file's bytes."""

    name: str  # unique in its source, with "/" between folders and no ".."
    read: Callable[[], bytes]  # raises a DiffusionADError, and never waits for ever


class Source(Protocol):
    """Images in an order that is the same every time. Nothing is read before it is asked for.

    One of millions of images must not make them all before the first.
    """

    @property
    def root(self) -> str:
        """Where the names begin: a folder, or the address of a bucket."""

    @property
    def count(self) -> int | None:
        """How many images there are; None if that is not known before the end."""

    def __iter__(self) -> Iterator[SourceImage]:
        """Go through the images."""


@dataclass(frozen=True)
class ImageSet:
    """Images in files, in the order of their sources. A `Source`."""

    folder: Path
    names: tuple[str, ...]  # relative to the folder, with "/" between folders
    left_out: LeftOut = field(default_factory=LeftOut)
    timeout: float = _READ_S  # for reading one, in seconds

    @property
    def root(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.names)

    def __iter__(self) -> Iterator[SourceImage]:
        for name in self.names:
            read = partial(images.read_file, self.path(name), timeout=self.timeout)
            yield SourceImage(name, read)

    def path(self, name: str) -> Path:
        """Where an image lies."""
        return self.folder / name


def find_images(
    sources: Sequence[str],
    *,
    lists: Sequence[Path] = (),
    skip: Path | None = None,
    timeout: float = _READ_S,
) -> ImageSet:
    """Gather the images of all sources; results in the folder `skip` (the output) are left out.

    A source is an image, a folder (searched through and through, by the rules
    of `folders`), or a glob pattern such as "line1/**/*.png". A list holds one
    path a line, relative to the working directory; "-" is standard input. What
    is named but cannot be read, such as a link to nothing or a named pipe, is
    left to the run, which says so in its row. Raises `SourceError`.
    """
    roots: list[str] = []
    paths: dict[str, None] = {}  # a set that keeps the order
    left_out = LeftOut()
    output = None if skip is None else os.path.realpath(skip)
    for source in sources:
        if os.path.isdir(source):
            if os.path.realpath(source) == output:
                raise SourceError(
                    f"{source}: the images cannot lie in the very folder of the results; "
                    "choose another output folder, which may be inside this one"
                )
            roots.append(os.path.abspath(source))
            paths |= dict.fromkeys(
                folders.find_images(
                    roots[-1], left_out, skip=lambda real: real == output, with_special=True
                )
            )
            continue
        files = [source] if os.path.lexists(source) else _glob(source, output)
        for path in map(os.path.abspath, files):
            roots.append(os.path.dirname(path))
            paths[path] = None
    for path in _listed(lists):
        if not _is_picture_of(output, path):
            roots.append(os.path.dirname(path))
            paths[path] = None

    if not paths:
        where = ", ".join([*sources, *map(str, lists)])
        others = "; ".join(left_out.described()) or "no files at all"
        raise SourceError(
            f"{where}: no images there ({others}); images end in "
            + ", ".join(sorted(IMAGE_SUFFIXES))
        )
    root = _common_folder(roots)
    names = tuple(Path(os.path.relpath(path, root)).as_posix() for path in paths)
    return ImageSet(Path(root), names, left_out, timeout)


def _is_picture_of(output: str | None, path: str) -> bool:
    """Tell whether a file is among the pictures that a run writes to its output folder."""
    if output is None:
        return False
    real = os.path.realpath(path)
    ours = (name + suffix for name in PICTURE_FOLDERS for suffix in ("", PART))
    return any(real.startswith(os.path.join(output, name, "")) for name in ours)


def _glob(pattern: str, output: str | None) -> list[str]:
    if not glob.has_magic(pattern):
        raise SourceError(f"{pattern}: no such file or folder")
    files = sorted(
        path
        for path in glob.glob(pattern, recursive=True)
        if not os.path.isdir(path) and not _is_picture_of(output, path)
    )
    if not files:
        raise SourceError(f"{pattern}: no file has such a name")
    return files


def _listed(lists: Iterable[Path]) -> Iterator[str]:
    for path in lists:
        try:
            content = sys.stdin.buffer.read() if path == STDIN else regular_files.read(path)
        except OSError as exc:
            piped = "; a list from a pipe goes to --list -" if os.path.exists(path) else ""
            raise SourceError(f"{path}: the list cannot be read: {exc.strerror}{piped}") from exc
        for number, line in enumerate(_decoded(content, path).splitlines(), start=1):
            if "\0" in line:
                raise SourceError(
                    f"{path}, line {number}: a zero byte, which no path can hold; save the list "
                    "as UTF-8"
                )
            if line.strip():
                yield os.path.abspath(line.strip())


def _decoded(content: bytes, path: Path) -> str:
    """Read a list as its editor wrote it; names that are not UTF-8 stay the bytes they are."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as exc:
            raise SourceError(f"{path}: the list is damaged UTF-16: {exc}") from exc
    return content.decode("utf-8-sig", "surrogateescape")


def _common_folder(roots: Sequence[str]) -> str:
    try:
        return os.path.commonpath(roots)
    except ValueError as exc:  # Windows: on several drives
        raise SourceError("the sources lie on several drives; score them one by one") from exc
