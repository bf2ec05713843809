"""Give an image's file a place by its verdict: move it there, or link it.

Nothing is ever written over, and nothing moved that is not the very content
that was judged. What is done twice, after a kill, ends as if done once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path

from diffusionad_client import regular_files
from diffusionad_client.watching.arrivals import state_of

_BLOCK = 2**20
_DIGITS = 8  # of the content's digest, in the name of the second file of a name


class Way(str, Enum):
    """How a file gets to its place."""

    MOVE = "move"
    LINK = "link"


def place(source: Path, target: Path, sha256: str, way: Way) -> Path | None:
    """Move or link a file of that content, and give the path where it is then.

    If `target` is another file's, part.png becomes part.1a2b3c4d.png, by the
    digest. A file that is there already is moved by taking its old name away.
    None: the file is gone, or holds something else by now. Raises `OSError`.
    """
    state = state_of(source)
    if not _holds(source, sha256):
        return next((path for path in _names(target, sha256) if _holds(path, sha256)), None)
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in _names(target, sha256):
        if not os.path.lexists(path):
            _make(source, path, sha256, way)
        if _holds(path, sha256):
            # A file that came in its place meanwhile stays.
            if way is Way.MOVE and state_of(source) == state:
                source.unlink()
            return path
    if not _holds(source, sha256):  # it was replaced meanwhile
        return None
    raise FileExistsError(errno.EEXIST, "files of both names are there already", str(target))


def _names(target: Path, sha256: str) -> Iterator[Path]:
    yield target
    yield target.with_name(f"{target.stem}.{sha256[:_DIGITS]}{target.suffix}")


def _make(source: Path, path: Path, sha256: str, way: Way) -> None:
    real = os.path.realpath(source)
    with suppress(OSError):  # on another disk, or one that knows no links
        os.link(real, path)
        if _holds(path, sha256):
            return
        path.unlink()  # it was replaced just now
        return
    if os.path.lexists(path):
        return
    if way is Way.LINK:
        path.symlink_to(real)
        return
    part = path.with_name(f".{sha256[:_DIGITS]}.part")
    try:
        shutil.copyfile(real, part)
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        shutil.copystat(real, part)
        if _holds(part, sha256):
            _rename_anew(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _rename_anew(part: Path, path: Path) -> None:
    """Rename a file, but not over another one."""
    try:
        os.link(part, path)
    except FileExistsError:
        return
    except OSError:  # no links there
        if not os.path.lexists(path):
            part.rename(path)


def _holds(path: Path, sha256: str) -> bool:
    """Tell whether a file can be read and has that content."""
    digest = hashlib.sha256()
    try:
        with regular_files.open_regular(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == sha256
