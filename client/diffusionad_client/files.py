"""Files that appear under their names only when they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusionad_client.errors import OutputError

PART = ".part"  # ends the name of a file that is still being written


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into an `OutputError` that names the file."""
    try:
        yield
    except OSError as exc:
        where = exc.filename or path
        raise OutputError(f"{where}: cannot be written: {exc.strerror or exc}") from exc


def write_aside(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it, so that no one ever sees half of it."""
    part = path.with_name(path.name + PART)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
        part.replace(path)


def publish(part: Path, path: Path) -> None:
    """Give a finished file its name, once its content is safely on the disk."""
    with output_errors(path):
        with part.open("r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
        part.replace(path)
