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
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
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


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
