"""A file of lines that is only ever added to, that a run can be watched by, and killed over."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import BinaryIO

from diffusionad_client.files import output_errors

# So much may be lost if the power fails; a process that is killed loses nothing.
SYNC_LINES = 256
SYNC_S = 2.0

_BLOCK = 2**16


class WholeLines:
    """A text file that only ever holds whole lines. Those that are there stay.

    When the disk is full the line that did not fit is taken back. What a
    killed run, or a failed power supply, left of a last line is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsynced = 0
        self._synced_at = time.monotonic()
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            _mend(self._file)

    def __enter__(self) -> WholeLines:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, with all of it on the disk."""
        if self._file.closed:
            return
        with output_errors(self._path):
            try:
                os.fsync(self._file.fileno())
            finally:
                self._file.close()

    def write(self, line: str) -> None:
        """Add a line. Names of files that are not UTF-8 go through as the bytes they are."""
        content = line.encode("utf-8", "surrogateescape")
        with output_errors(self._path):
            end = self._file.seek(0, os.SEEK_END)
            try:
                while content:  # a disk that is nearly full takes a part, and says so next time
                    content = content[self._file.write(content) :]
            except OSError:
                self._file.truncate(end)
                raise
            self._sync_now_and_then()

    def _sync_now_and_then(self) -> None:
        self._unsynced += 1
        now = time.monotonic()
        if self._unsynced >= SYNC_LINES or now - self._synced_at >= SYNC_S:
            os.fsync(self._file.fileno())
            self._unsynced, self._synced_at = 0, now


def _mend(file: BinaryIO) -> None:
    """Cut off what is no whole line at the end: torn, or zeros where data never came."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = _start_of_last_line(file, end)
        file.seek(start)
        line = file.read(end - start)
        if line.endswith(b"\n") and _is_whole(line):
            break
        if not line.endswith(b"\n") and _is_whole(line):  # whole, as an editor left it
            file.write(b"\n")
            return
        end = start
        file.truncate(end)


def _is_whole(line: bytes) -> bool:
    if not line.strip():
        return True
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _start_of_last_line(file: BinaryIO, end: int) -> int:
    """Find where the line begins that ends at `end`, its line end included."""
    place = end - 1  # before its own line end
    while place > 0:
        begin = max(0, place - _BLOCK)
        file.seek(begin)
        found = file.read(place - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        place = begin
    return 0
