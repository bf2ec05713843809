"""Images in files of this machine: single ones, folders, glob patterns and lists.

They are searched for twice: first for how many there are and the folder that
they have in common, then for scoring. What lies between is not kept, unless
there are few.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from diffusionad_client import folders, images
from diffusionad_client.errors import SourceError
from diffusionad_client.files import PART
from diffusionad_client.folders import LeftOut
from diffusionad_client.scoring.lists import ImageList
from diffusionad_client.scoring.results import PICTURE_FOLDERS
from diffusionad_client.scoring.seen import Seen
from diffusionad_client.scoring.sources import READ_S, SourceImage, nothing_found
from diffusionad_client.sorting import sorted_texts

KEPT = 100_000  # paths; more are searched for again


@dataclass(frozen=True)
class Search:
    """What to search, and what of it is the output's own."""

    sources: tuple[str, ...]
    lists: tuple[ImageList, ...]
    output: str | None  # its real path

    def paths(self, left_out: LeftOut) -> Iterator[tuple[str, str]]:
        """Yield each image's absolute path once, with the folder that its source has it in."""
        if len(self.sources) == 1 and not self.lists:
            yield from self._found(left_out)  # in which no file comes twice
            return
        seen = Seen()
        try:
            for path, root in self._found(left_out):
                if seen.add(path):
                    yield path, root
        finally:
            seen.close()

    def _found(self, left_out: LeftOut) -> Iterator[tuple[str, str]]:
        for source in self.sources:
            if os.path.isdir(source):
                if os.path.realpath(source) == self.output:
                    raise SourceError(
                        f"{source}: the images cannot lie in the very folder of the results; "
                        "choose another output folder, which may be inside this one"
                    )
                root = os.path.abspath(source)
                for path in folders.find_images(
                    root, left_out, skip=lambda real: real == self.output, with_special=True
                ):
                    yield path, root
            elif os.path.lexists(source):
                path = os.path.abspath(source)
                yield path, os.path.dirname(path)
            else:
                for path in map(os.path.abspath, _glob(source, self.output)):
                    yield path, os.path.dirname(path)
        for listed in self.lists:
            for path in map(os.path.abspath, listed):
                if not _is_picture_of(self.output, path):
                    yield path, os.path.dirname(path)


@dataclass(frozen=True)
class ImageSet:
    """Images in files, in the order of their sources. A `Source`."""

    folder: Path
    kept: tuple[str, ...] = ()  # names relative to the folder, with "/" between folders
    left_out: LeftOut = field(default_factory=LeftOut)
    timeout: float = READ_S  # for reading one, in seconds
    again: Search | None = None  # where there are too many to be kept
    found: int | None = None  # then: how many

    @property
    def root(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def count(self) -> int:
        """How many images there are, or were when they were searched for."""
        return len(self.kept) if self.found is None else self.found

    @property
    def names(self) -> Iterator[str]:
        """The names of all images."""
        if self.again is None:
            yield from self.kept
            return
        start = len(os.path.join(self.root, ""))
        for path, _ in self.again.paths(LeftOut()):
            yield path[start:].replace(os.sep, "/")

    def __iter__(self) -> Iterator[SourceImage]:
        for name in self.names:
            read = partial(images.read_file, self.path(name), timeout=self.timeout)
            yield SourceImage(name, read)

    def path(self, name: str) -> Path:
        """Where an image lies."""
        return self.folder / name


def find(
    sources: Sequence[str], lists: Sequence[Path], skip: Path | None, timeout: float
) -> ImageSet:
    """Search for images; see `sources.find_images`. Raises `SourceError`."""
    output = None if skip is None else os.path.realpath(skip)
    with ExitStack() as opened:
        listed = tuple(opened.enter_context(closing(ImageList(path))) for path in lists)
        found = _survey(Search(tuple(sources), listed, output), timeout)
        if found.again is not None:
            opened.pop_all()  # it goes through the lists again
    if not found.count:
        raise nothing_found([*sources, *lists], found.left_out)
    return found


def _survey(search: Search, timeout: float) -> ImageSet:
    """Go through all images for how many there are, and what folder they have in common."""
    left_out = LeftOut()
    paths: list[str] = []
    common, last, count = "", "", 0
    for path, root in search.paths(left_out):
        count += 1
        if count <= KEPT:
            paths.append(path)
        if root != last:
            common = _common_folder(common or root, root)
            last = root
    folder = Path(common)
    if count > KEPT:
        return ImageSet(folder, (), left_out, timeout, search, count)
    names = tuple(Path(os.path.relpath(path, common)).as_posix() for path in paths)
    return ImageSet(folder, names, left_out, timeout)


def _is_picture_of(output: str | None, path: str) -> bool:
    """Tell whether a file is among the pictures that a run writes to its output folder."""
    if output is None:
        return False
    real = os.path.realpath(path)
    ours = (name + suffix for name in PICTURE_FOLDERS for suffix in ("", PART))
    return any(real.startswith(os.path.join(output, name, "")) for name in ours)


def _glob(pattern: str, output: str | None) -> Iterator[str]:
    if not glob.has_magic(pattern):
        raise SourceError(f"{pattern}: no such file or folder")
    is_any = False
    for path in sorted_texts(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(path) and not _is_picture_of(output, path):
            is_any = True
            yield path
    if not is_any:
        raise SourceError(f"{pattern}: no file has such a name")


def _common_folder(one: str, other: str) -> str:
    try:
        return os.path.commonpath((one, other))
    except ValueError as exc:  # Windows: on several drives
        raise SourceError("the sources lie on several drives; score them one by one") from exc
