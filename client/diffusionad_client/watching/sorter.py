"""Sorts the files of a folder by their verdicts, one after another, in a thread of its own.

A place that is full, read-only or away holds up the sorting and nothing else:
the files stay where they are, and are tried again until it works.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from diffusionad_client.files import refusal
from diffusionad_client.scoring.row import Row
from diffusionad_client.watching.placing import Way, place

FAILED = "FAILED"  # the folder of what could not be scored
FIRST_RETRY_S = 0.5  # doubled each time
LONGEST_RETRY_S = 10.0
_LISTEN_EVERY_S = 0.2

# What is said of a place, and passes when someone sees to it; all else is said of one file.
_OF_THE_PLACE = frozenset(
    {
        *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ETIMEDOUT),
        *(getattr(errno, name, errno.EIO) for name in ("EDQUOT", "ESTALE", "EHOSTDOWN")),
    }
)


@dataclass(frozen=True)
class Sorting:
    """How files are sorted: into folders of their verdicts below `into`."""

    way: Way
    into: Path


class Sorter:
    """Puts files into the folders of their verdicts: OK, REVIEW, NG and FAILED.

    `notice` hears when the place refuses, and when it does no more.
    """

    def __init__(
        self, folder: Path, sorting: Sorting, notice: Callable[[str], object] = lambda text: None
    ) -> None:
        self._folder = folder
        self._sorting = sorting
        self._notice = notice
        self._waiting: deque[tuple[str, str, str, Future[Path | None]]] = deque()
        self._come = threading.Condition()
        self._ended = threading.Event()
        self.is_stuck = False
        self._thread = threading.Thread(target=self._work, name="sort", daemon=True)
        self._thread.start()

    def put(self, name: str, verdict: str | None, sha256: str | None) -> Future[Path | None]:
        """Sort a file, and give where it lies then; None: where it was, or nowhere.

        One that could not be read stays where it is.
        """
        future: Future[Path | None] = Future()
        if sha256 is None:
            future.set_result(None)
            return future
        with self._come:
            self._waiting.append((name, verdict or FAILED, sha256, future))
            self._come.notify()
        return future

    def put_row(self, row: Row) -> Future[Path | None]:
        """Sort the file of a row."""
        return self.put(row.image, row.verdict, row.sha256)

    def wait_for(self, sorted_to: Future[Path | None], seconds: float) -> Path | None:
        """Give where a file lies once it is sorted; None: not in that time, or sorting waits."""
        with self._come:
            self._come.wait_for(lambda: sorted_to.done() or self.is_stuck, seconds)
        return sorted_to.result() if sorted_to.done() else None

    def finish(self, seconds: float) -> int:
        """Sort what waits, for so long, and end; give how many files are not sorted yet."""
        with self._come:
            if not self.is_stuck:
                self._come.wait_for(lambda: not self._waiting or self.is_stuck, seconds)
            left = len(self._waiting)
        self._ended.set()
        return left

    def _work(self) -> None:
        pause = FIRST_RETRY_S
        while not self._ended.is_set():
            with self._come:
                if not self._come.wait_for(lambda: self._waiting, _LISTEN_EVERY_S):
                    continue
                name, verdict, sha256, future = self._waiting[0]
            try:
                path = place(
                    self._folder / name,
                    self._sorting.into / verdict / name,
                    sha256,
                    self._sorting.way,
                )
            except OSError as exc:
                if exc.errno in _OF_THE_PLACE:
                    self._stick(name, exc)
                    self._ended.wait(pause)
                    pause = min(2 * pause, LONGEST_RETRY_S)
                    continue
                self._notice(f"Not sorted: {name}: {refusal(exc, self._sorting.into)}")
                path = None
            pause = FIRST_RETRY_S
            self._go_on()
            with self._come:
                self._waiting.popleft()
                future.set_result(path)
                self._come.notify_all()

    def _stick(self, name: str, error: OSError) -> None:
        if not self.is_stuck:
            self._notice(
                f"Sorting waits: {name}: {error.filename2 or error.filename or ''}: "
                f"{refusal(error, self._sorting.into)}; scoring goes on"
            )
        with self._come:
            self.is_stuck = True
            self._come.notify_all()

    def _go_on(self) -> None:
        if self.is_stuck:
            self._notice("Sorting goes on")
        self.is_stuck = False
