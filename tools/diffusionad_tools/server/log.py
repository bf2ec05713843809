"""Where what Triton prints goes: into a file, or to whoever wants each record of it.

Either also says what a server has printed since its start, which is where the
reason stands if it does not come up.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from diffusionad_client.errors import ServeError
from diffusionad_tools.server.triton_lines import LogRecord, TritonLines

_REMEMBERED = 2000  # lines; a start prints some hundreds
_LAST_LINES_S = 2.0  # to read what a server that has ended left in its pipe


def append_to(path: Path) -> BinaryIO:
    """Open a file of `--log-file` for writing at its end. Raises `ServeError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as exc:
        raise ServeError(f"--log-file {path}: cannot be written: {exc.strerror}") from exc


class TritonLog(ABC):
    """What one server after another, never two at a time, prints."""

    def __init__(self, place: str) -> None:
        self.place = place  # in words, for whoever looks for the log

    @abstractmethod
    def opened(self) -> AbstractContextManager[int]:
        """Give the handle that a new server prints to. Raises `ServeError`."""

    @abstractmethod
    def said(self) -> str:
        """Give what the newest server has printed."""

    @abstractmethod
    def close(self) -> None:
        """Wait for the last lines of a server that has ended."""


class FileLog(TritonLog):
    """A file that Triton writes to by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self._start = 0

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the file for writing at its end. Raises `ServeError`."""
        with append_to(self.path) as log:
            self._start = log.tell()
            yield log.fileno()

    def said(self) -> str:
        """Read the file from where the newest server began."""
        with self.path.open("rb") as log:
            log.seek(self._start)
            return log.read().decode(errors="replace")

    def close(self) -> None:
        """Do nothing: Triton has written by itself."""


class RecordLog(TritonLog):
    """Hands on each record as it is printed, by a thread for each server."""

    def __init__(self, take: Callable[[LogRecord], None], place: str) -> None:
        super().__init__(place)
        self._take = take
        self._said: deque[str] = deque(maxlen=_REMEMBERED)
        self._reader: threading.Thread | None = None

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open a pipe, which is read until the last of a server's processes has ended."""
        self.close()
        reading, writing = os.pipe()
        self._said = deque(maxlen=_REMEMBERED)
        self._reader = threading.Thread(
            target=self._read, args=(reading, self._said), name="triton-log", daemon=True
        )
        self._reader.start()
        try:
            yield writing
        finally:
            os.close(writing)

    def said(self) -> str:
        """Give the lines of the newest server, all of them if it has ended."""
        self.close()
        return "\n".join(self._said.copy())

    def close(self) -> None:
        """Wait for the end of the pipe, but not for long: a process may still hold it."""
        if self._reader is not None:
            self._reader.join(_LAST_LINES_S)

    def _read(self, reading: int, said: deque[str]) -> None:
        lines = TritonLines()
        with open(reading, encoding="utf-8", errors="replace", newline="\n") as pipe:
            for line in pipe:
                text = line.rstrip("\r\n")
                said.append(text)
                self._hand_on(lines.read(text))
        self._hand_on(lines.end())

    def _hand_on(self, records: Iterator[LogRecord]) -> None:
        """Hand records on. One that cannot be written, to a full disk perhaps, is left out.

        For the pipe must be read on: Triton waits for room in it, and every request for Triton.
        """
        for record in records:
            with suppress(OSError, ValueError):  # the latter of a stream that was closed
                self._take(record)
