"""File operations that survive a crash: what has its final name is whole and on the disk.

Everything else in `release` changes a repository through these alone.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def make_folder(path: Path) -> None:
    """Create one folder; those above it must exist."""
    os.mkdir(path)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a new file through to the disk. Not atomic: give it a name nobody reads yet."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a new file as `write_text` does, with a mode before the umask."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def copy(source: Path, target: Path) -> None:
    """Copy a file through to the disk. Not atomic: give it a name nobody reads yet."""
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def move_into_place(source: Path, target: Path) -> None:
    """Give a file or folder its final name at one stroke; a file may take another's place.

    A folder's content is synced first: names before contents is what a crash
    would otherwise leave.
    """
    if source.is_dir():
        for folder, _, _ in os.walk(source):
            _sync(Path(folder))
    os.replace(source, target)
    _sync(target.parent)


def move_out(source: Path, target: Path) -> None:
    """Take a folder away at one stroke, to a place where nobody misses it half removed.

    The place that it leaves is synced: what is taken away next may be what it needs.
    """
    os.replace(source, target)
    _sync(source.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
