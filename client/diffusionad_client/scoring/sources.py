"""Which images to score: from files, folders, glob patterns and lists of paths.

Every image gets a name: its path relative to the folder that all sources have
in common. Names are unique, hold no "..", and name the files made of an image.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusionad_client.errors import SourceError
from diffusionad_client.folders import IMAGE_SUFFIXES
from diffusionad_client.scoring.results import PICTURE_FOLDERS, RESULTS_JSONL, RUN_JSON


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, in the order of their sources."""

    root: Path
    names: tuple[str, ...]  # relative to the root, with "/" between folders
    ignored: int  # files in the folders that are no images by their suffix
    runs: int = 0  # folders that were left out because they hold the results of a run

    def path(self, name: str) -> Path:
        """Where an image lies."""
        return self.root / name


def find_images(
    sources: Sequence[str], *, lists: Sequence[Path] = (), skip: Path | None = None
) -> ImageSet:
    """Gather the images of all sources; results in the folder `skip` (the output) are left out.

    A source is an image, a folder (searched through and through, hidden files
    and results of other runs left out), or a glob pattern such as
    "line1/**/*.png". A list holds one path a line, relative to the working
    directory. Raises `SourceError`.
    """
    roots: list[str] = []
    found: dict[str, None] = {}  # a set that keeps the order
    ignored = 0
    runs: set[str] = set()
    output = None if skip is None else os.path.realpath(skip)
    for source in sources:
        if os.path.isdir(source):
            if os.path.realpath(source) == output:
                raise SourceError(
                    f"{source}: the images cannot lie in the very folder of the results; "
                    "choose another output folder, which may be inside this one"
                )
            roots.append(os.path.abspath(source))
            for path in _walk(roots[-1], output, runs):
                if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
                    found[path] = None
                else:
                    ignored += 1
            continue
        files = [source] if os.path.isfile(source) else _glob(source, output)
        for path in map(os.path.abspath, files):
            roots.append(os.path.dirname(path))
            found[path] = None
    for path in _listed(lists):
        if not _is_picture_of(output, path):
            roots.append(os.path.dirname(path))
            found[path] = None

    if not found:
        where = ", ".join([*sources, *map(str, lists)])
        raise SourceError(
            f"{where}: no images there ({ignored} other files); images end in "
            + ", ".join(sorted(IMAGE_SUFFIXES))
        )
    root = _common_folder(roots)
    names = tuple(Path(os.path.relpath(path, root)).as_posix() for path in found)
    return ImageSet(Path(root), names, ignored, len(runs))


def _walk(folder: str, output: str | None, runs: set[str]) -> Iterator[str]:
    """Yield the files below a folder, sorted; links to folders are followed, once each.

    The output folder and those of other runs, which are added to `runs`, are left out.
    """
    visited = {os.path.realpath(folder)}

    def refuse(exc: OSError) -> None:
        raise SourceError(f"{exc.filename}: cannot be searched: {exc.strerror}") from exc

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(parent, name))
            if name.startswith(".") or real in visited or real == output:
                continue
            visited.add(real)
            if _holds_a_run(real):
                runs.add(real)
            else:
                kept.append(name)
        folders[:] = kept
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(parent, name)


def _holds_a_run(folder: str) -> bool:
    return all(os.path.isfile(os.path.join(folder, name)) for name in (RESULTS_JSONL, RUN_JSON))


def _is_picture_of(output: str | None, path: str) -> bool:
    """Tell whether a file is among the pictures that a run writes to its output folder."""
    if output is None:
        return False
    real = os.path.realpath(path)
    return any(real.startswith(os.path.join(output, name, "")) for name in PICTURE_FOLDERS)


def _glob(pattern: str, output: str | None) -> list[str]:
    if not glob.has_magic(pattern):
        raise SourceError(f"{pattern}: no such file or folder")
    files = sorted(
        path
        for path in glob.glob(pattern, recursive=True)
        if os.path.isfile(path) and not _is_picture_of(output, path)
    )
    if not files:
        raise SourceError(f"{pattern}: no file has such a name")
    return files


def _listed(lists: Iterable[Path]) -> Iterator[str]:
    for path in lists:
        try:
            lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        except OSError as exc:
            raise SourceError(f"{path}: the list cannot be read: {exc.strerror}") from exc
        yield from (os.path.abspath(line.strip()) for line in lines if line.strip())


def _common_folder(roots: Sequence[str]) -> str:
    try:
        return os.path.commonpath(roots)
    except ValueError as exc:  # Windows: on several drives
        raise SourceError("the sources lie on several drives; score them one by one") from exc
