"""Search a folder for images: one walk, with one set of rules, for scoring and for training.

Images are told by their suffix, whatever its case, at every depth. What is
left out is counted by reason, and the first names are kept, to say so.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from diffusionad_client.errors import SourceError
from diffusionad_client.sorting import sorted_texts

IMAGE_SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"),
        *(".gif", ".pbm", ".pgm", ".pnm", ".ppm"),
    }
)

GOOD = "good"  # the folder of good parts in MVTec AD's layout: test/good, test/scratch, ...

# Kept beside users' files by file systems, network drives and archives; some hold thumbnails.
OF_THE_SYSTEM = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "lost+found", "__macosx"),
        *("$recycle.bin", "system volume information"),
    }
)
# Files that a folder of ours holds: of a scoring, a training and a release bundle. The pictures
# there were made of images, or for them.
_OURS = (
    (".diffusionad/kind",),  # of a run that is under way, or was killed
    ("results.jsonl", "run.json"),
    ("config.json", "run.json"),
    ("metadata.json", "references.npz"),
)
_EXAMPLES = 5  # names kept for each reason


class Reason(str, Enum):
    """Why a file or folder was left out, as people read it after a number."""

    NO_IMAGE = "no images by their suffix"
    HIDDEN = "hidden"  # the ._part.png of macOS among them
    SYSTEM = "folders of the system"
    SPECIAL = "no regular files"  # pipes, sockets, devices, links to nothing
    AGAIN = "links to folders searched already"
    OURS = "folders of results"
    OUTSIDE = "names that lead out of where they lie"  # in archives and buckets
    TWICE = "names that are there before"  # in archives

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class LeftOut:
    """What a search left out: how many by reason, and the first names of each."""

    counts: Counter[Reason] = field(default_factory=Counter)
    examples: defaultdict[Reason, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: Reason, name: str) -> None:
        """Count one more."""
        self.counts[reason] += 1
        if len(self.examples[reason]) < _EXAMPLES:
            self.examples[reason].append(name)

    def include(self, other: LeftOut, prefix: str) -> None:
        """Add what another search left out, in the folder `prefix` of this one."""
        for reason, count in other.counts.items():
            self.counts[reason] += count
            names = [
                os.path.normpath(os.path.join(prefix, name)) for name in other.examples[reason]
            ]
            self.examples[reason] = [*self.examples[reason], *names][:_EXAMPLES]

    def described(self) -> list[str]:
        """Say it in a line for each reason, such as "2 hidden: ._a.png, .DS_Store"."""
        lines = []
        for reason in Reason:
            if count := self.counts[reason]:
                more = count - len(self.examples[reason])
                rest = f" and {more} more" if more else ""
                lines.append(f"{count} {reason}: {', '.join(self.examples[reason])}{rest}")
        return lines


def is_image(name: str | Path) -> bool:
    """Tell by its name whether a file is an image."""
    base = os.path.basename(name)
    return not is_hidden(base) and os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES


def class_of(name: str) -> str:
    """Give the folder of an image's name, which is its class where folders are labels."""
    return PurePosixPath(name).parent.as_posix()


def is_good(name: str) -> bool:
    """Tell whether a class is that of the good parts."""
    return PurePosixPath(name).name == GOOD


def is_hidden(name: str) -> bool:
    """Tell whether a name is one that people do not see. macOS puts ._part.png beside part.png."""
    return name.startswith(".")


def holds_results(folder: str) -> bool:
    """Tell whether a run of ours wrote its results, or its release, into a folder."""
    return any(all(os.path.isfile(os.path.join(folder, n)) for n in names) for names in _OURS)


def find_images(
    folder: str | Path,
    left_out: LeftOut | None = None,
    *,
    skip: Callable[[str], bool] = lambda folder: False,
    with_special: bool = False,
    unreadable: Callable[[SourceError], object] | None = None,
) -> Iterator[str]:
    """Yield the images below a folder as they are found: a folder's files, then its subfolders.

    Both are sorted, and paths begin with `folder`. Links to folders are
    followed, once each. Of a subfolder that `skip` says yes to, by its real
    path, nothing is said; all else that is left out is added to `left_out` as
    the search goes on, by its path relative to `folder`. `with_special` yields
    what is called an image but is no regular file, such as a link to nothing,
    for those who report each failure. Raises `SourceError` for a folder that
    cannot be read; where there is an `unreadable`, that hears of it instead,
    and the search goes on.
    """
    found = LeftOut() if left_out is None else left_out
    top = os.fspath(folder)
    visited: set[str] = set()
    waiting = [""]  # relative to the top; the next one last
    while waiting:
        inside = waiting.pop()
        folders = []
        for entry in _entries(os.path.join(top, inside), unreadable):
            visited = visited or {os.path.realpath(top)}
            name = os.path.join(inside, entry.name)
            if is_hidden(entry.name):
                found.add(Reason.HIDDEN, name)
            elif entry.is_folder:
                if _is_to_be_searched(top, name, found, visited, skip):
                    folders.append(name)
            elif not is_image(entry.name):
                found.add(Reason.NO_IMAGE, name)
            elif not (with_special or entry.is_file):
                found.add(Reason.SPECIAL, name)
            else:
                yield os.path.join(top, name)
        waiting.extend(reversed(folders))


def would_find(top: str, name: str, *, skip: Callable[[str], bool]) -> bool:
    """Tell whether `find_images` would come to a file by the way of its name, relative to `top`.

    Links to folders are left to the search, which follows each once.
    """
    *parents, base = name.split("/")
    place = top
    for parent in parents:
        place = os.path.join(place, parent)
        if is_hidden(parent) or parent.lower() in OF_THE_SYSTEM or os.path.islink(place):
            return False
        if skip(os.path.realpath(place)) or holds_results(place):
            return False
    return is_image(base)


def _is_to_be_searched(
    top: str,
    name: str,
    left_out: LeftOut,
    visited: set[str],
    skip: Callable[[str], bool],
) -> bool:
    if os.path.basename(name).lower() in OF_THE_SYSTEM:
        left_out.add(Reason.SYSTEM, name)
        return False
    real = os.path.realpath(os.path.join(top, name))
    if real in visited:
        left_out.add(Reason.AGAIN, name)
        return False
    visited.add(real)
    if skip(real):
        return False
    if holds_results(real):
        left_out.add(Reason.OURS, name)
        return False
    return True


class _Entry(NamedTuple):
    name: str
    is_folder: bool
    is_file: bool


def _entries(
    folder: str, unreadable: Callable[[SourceError], object] | None = None
) -> Iterator[_Entry]:
    """Yield what a folder holds, sorted. Of a million entries, most wait on the disk meanwhile."""
    try:
        with os.scandir(folder) as entries:
            # No name holds a zero byte, so that what follows it does not change their order.
            texts = sorted_texts(f"{entry.name}\0{_kind(entry)}" for entry in entries)
            for text in texts:
                name, _, kind = text.partition("\0")
                yield _Entry(name, kind == _FOLDER, kind == _FILE)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = getattr(exc, "strerror", None) or exc
        error = SourceError(f"{folder}: cannot be searched: {reason}")
        if unreadable is None:
            raise error from exc
        unreadable(error)


_FOLDER, _FILE, _OTHER = "d", "f", "o"


def _kind(entry: os.DirEntry[str]) -> str:
    return _FOLDER if _is_folder(entry) else _FILE if _is_file(entry) else _OTHER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
