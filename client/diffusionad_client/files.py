"""Files that appear under their names only when they are whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffusionad_client.errors import OutputError

PART = ".part"  # ends the name of a file that is still being written

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows knows no quotas by number


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into an `OutputError` that names the file."""
    try:
        yield
    except OSError as exc:
        where = exc.filename or path
        raise OutputError(f"{where}: cannot be written: {refusal(exc, Path(where))}") from exc


def refusal(exc: OSError, path: Path) -> str:
    """Say why the file system refused something at `path`; of a full disk, which that is."""
    reason = str(exc.strerror or exc)
    if exc.errno in _FULL:
        reason += f": {_describe_disk(path)}; make room there, or write elsewhere"
    return reason


def _describe_disk(path: Path) -> str:
    """Name the file system that a path lies on, or would, and how much room it has."""
    place = Path(os.path.realpath(path))
    while not (os.path.ismount(place) or place == place.parent):
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return f"the disk at {place}"
    return f"the disk at {place} has {usage.free / 2**20:.1f} of {usage.total / 2**20:.1f} MiB free"


def write_aside(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it, so that no one ever sees half of it."""
    part = path.with_name(path.name + PART)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)  # on a full disk it is in the way of what can be kept
            raise


def publish(part: Path, path: Path) -> None:
    """Give a finished file its name, once its content is safely on the disk."""
    with output_errors(path):
        with part.open("r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
        part.replace(path)
