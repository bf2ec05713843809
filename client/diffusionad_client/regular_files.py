"""Read files so that nothing hangs: only regular ones, and inside a time if one is given.

Opening a named pipe waits for its writer, a device may do anything, and a
network drive that is gone holds a read for ever, with Ctrl-C kept out.
All that goes wrong is an `OSError`, whose `strerror` is a reason for people.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from diffusionad_client.helper_threads import HelperThreads

# A pipe that takes the place of the file just then must not hold us either.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)  # Windows
)

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

# No picture, page or list is larger; what claims to be would fill the memory.
MOST_BYTES = 2**31 - 1

# Each read that never ends keeps a thread; a drive that is gone for a day must not take them all.
MOST_READS = 64
_reads = threading.BoundedSemaphore(MOST_READS)
_readers = HelperThreads("read")


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading bytes. Raises `OSError`."""
    try:
        _require_regular(os.stat(path), path)  # opening a device would be too much already
        number = os.open(path, _FLAGS)
    except ValueError as exc:  # a path with a NUL in it
        raise OSError(errno.EINVAL, f"no path of a file: {exc}", str(path)) from exc
    try:
        _require_regular(os.fstat(number), path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read(path: str | Path, *, timeout: float | None = None) -> bytes:
    """Give the content of a regular file, of at most `MOST_BYTES`.

    With a `timeout`, in seconds, whoever asks waits no longer, and hears a
    Ctrl-C, whatever the file system does. Raises `OSError`, of the kind
    `TimeoutError` when the time is over.
    """
    return _read(path) if timeout is None else in_time(lambda: _read(path), str(path), timeout)


def in_time(work: Callable[[], bytes], name: str, timeout: float) -> bytes:
    """Give what `work` reads, within `timeout` seconds, or raise a `TimeoutError` for `name`.

    Work that takes longer is left to a thread that nobody waits for. Raises what `work` raises.
    """
    late = TimeoutError(errno.ETIMEDOUT, f"not read within {timeout:g} s", name)
    if not _reads.acquire(timeout=timeout):
        raise late
    read: list[bytes] = []
    failed: list[BaseException] = []
    over = threading.Lock()  # cheaper than an event
    over.acquire()

    def run() -> None:
        try:
            read.append(work())
        except BaseException as exc:
            failed.append(exc)
        finally:
            _reads.release()
            over.release()

    _readers.begin(run)
    if not over.acquire(timeout=timeout):
        raise late
    if failed:
        raise failed[0]
    return read[0]


def _read(path: str | Path) -> bytes:
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
            raise OSError(errno.EFBIG, f"{size} bytes, more than {MOST_BYTES}", str(path))
        return file.read()


def _require_regular(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "no regular file")
    raise OSError(errno.EINVAL, f"{kind}, and only regular files are read", str(path))
