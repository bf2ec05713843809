"""Follows the results as they are written, and sees to what each row entails.

The rows themselves are the queue, and a number on the disk says how far it was
done. So commands that are slow hold up no image and fill no memory, and after a
kill only those are run again that had not ended.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from diffusionad_client import regular_files
from diffusionad_client.errors import OutputError
from diffusionad_client.files import write_aside
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.workers import Workers

_LISTEN_EVERY_S = 0.2


@dataclass
class Cursor:
    """How far results were followed, in bytes from their beginning. Kept in a file."""

    path: Path
    run: str  # which results: when their first run began
    done: int = 0  # all rows before it
    beyond: dict[int, int] = field(default_factory=dict)  # and these: begin -> end

    @classmethod
    def read(cls, path: Path, run: str, end: int) -> Cursor:
        """Go on where it stood, or at the end of results that were not followed before."""
        try:
            document = json.loads(regular_files.read(path))
            if document["run"] != run:
                return cls(path, run, end)
            beyond = {int(begin): int(to) for begin, to in document["beyond"] if to <= end}
            return cls(path, run, min(int(document["done"]), end), beyond)
        except FileNotFoundError:
            return cls(path, run, end)
        except (OSError, ValueError, KeyError, TypeError):  # after a power failure
            return cls(path, run, end)

    def passes(self, begin: int, end: int) -> None:
        """Note that a row is done, and write it down. Raises `OutputError`."""
        self.beyond[begin] = end
        while self.done in self.beyond:
            self.done = self.beyond.pop(self.done)
        self.write()

    def write(self) -> None:
        """Write down how far it is. Raises `OutputError`."""
        document = {"run": self.run, "done": self.done, "beyond": sorted(self.beyond.items())}
        write_aside(self.path, json.dumps(document).encode())


class Follower:
    """Calls `act` with each row of `results` from the cursor on, in `jobs` threads.

    `before` is called with each row in their order, and `act` with what it
    gave. `notice` hears when how far it is cannot be written down.
    """

    def __init__(
        self,
        results: Path,
        cursor: Cursor,
        before: Callable[[Row], Future[Path | None] | None],
        act: Callable[[Row, Future[Path | None] | None], object],
        *,
        jobs: int,
        notice: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._results = results
        self._cursor = cursor
        self._before = before
        self._act = act
        self._notice = notice
        self._workers = Workers(jobs, "command")
        self._free = threading.Semaphore(jobs)
        self._change = threading.Condition()
        self._end = 0
        self._under_way = 0
        self._ended = threading.Event()
        self._told = False
        cursor.write()
        self.come()
        threading.Thread(target=self._follow, name="follow", daemon=True).start()

    @property
    def left(self) -> int:
        """How many bytes of rows are not done yet."""
        done = sum(end - begin for begin, end in self._cursor.beyond.items())
        return self._end - self._cursor.done - done

    def come(self) -> None:
        """Hear that rows were written, and are whole."""
        with self._change:
            self._end = self._results.stat().st_size
            self._change.notify_all()

    def finish(self, seconds: float) -> bool:
        """Do what is left, for so long, and end what is under way; tell whether that was all."""
        with self._change:
            self._change.wait_for(lambda: not self.left, seconds)
        self._ended.set()
        with self._change:
            while self._under_way:  # a wait without an end would keep a Ctrl-C out on Windows
                self._change.wait(_LISTEN_EVERY_S)
        self._workers.stop()
        return not self.left

    def _follow(self) -> None:
        with regular_files.open_regular(self._results) as file:
            file.seek(self._cursor.done)
            while not self._ended.is_set():
                begin = file.tell()
                with self._change:
                    if self._end <= begin:
                        self._change.wait(_LISTEN_EVERY_S)
                        continue
                line = file.readline()
                if self._cursor.beyond.get(begin) != begin + len(line):
                    self._begin(line, begin)

    def _begin(self, line: bytes, begin: int) -> None:
        end = begin + len(line)
        try:
            row = Row.from_document(json.loads(line))
        except (ValueError, RecursionError):  # a blank line, or one that was edited
            self._passed(begin, end)
            return
        sorted_to = self._before(row)
        while not self._free.acquire(timeout=_LISTEN_EVERY_S):
            if self._ended.is_set():
                return
        with self._change:
            if self._ended.is_set():
                return
            self._under_way += 1

        def task() -> None:
            try:
                self._act(row, sorted_to)
            finally:
                self._free.release()
                with self._change:
                    self._under_way -= 1
                self._passed(begin, end)

        self._workers.submit(task)

    def _passed(self, begin: int, end: int) -> None:
        with self._change:
            try:
                self._cursor.passes(begin, end)
            except OutputError as exc:
                if not self._told:
                    self._notice(f"{exc}; after a kill commands may be run once more")
                self._told = True
            else:
                self._told = False
            self._change.notify_all()
