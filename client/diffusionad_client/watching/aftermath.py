"""What follows from a verdict: the file is sorted, and then the user's commands are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from diffusionad_client.scoring.row import Row
from diffusionad_client.watching.follower import Cursor, Follower
from diffusionad_client.watching.sorter import Sorter, Sorting
from diffusionad_client.watching.verdict_commands import (
    JOBS,
    TIMEOUT_S,
    VerdictCommand,
    commands_for,
)

DRAIN_S = 10.0  # for what is left to do when the watch ends; the rest is for the next
_SORT_S = 10.0  # for a file to be sorted before its command is run all the same


@dataclass(frozen=True, kw_only=True)
class Consequences:
    """What the user wants to follow from verdicts."""

    sorting: Sorting | None = None
    commands: Sequence[VerdictCommand] = ()
    command_timeout: float = TIMEOUT_S  # seconds
    jobs: int = JOBS  # commands at once


class Aftermath:
    """Sees to the consequences of rows as they are written. Nothing in it holds up the scoring.

    A context manager, at whose end it is finished.

    `ran` hears of each command that has ended, and of what went wrong or None.
    """

    def __init__(
        self,
        folder: Path,
        results: Path,
        cursor: Cursor,
        wanted: Consequences,
        *,
        notice: Callable[[str], object],
        ran: Callable[[Row, str | None], object],
    ) -> None:
        self._folder = folder
        self._wanted = wanted
        self._notice = notice
        self._ran = ran
        self._sorter = None
        if wanted.sorting is not None:
            self._sorter = Sorter(folder, wanted.sorting, notice)
        self._follower = Follower(
            results, cursor, self._sort, self._act, jobs=wanted.jobs, notice=notice
        )

    def __enter__(self) -> Aftermath:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None or issubclass(kind, Exception):  # and not a second Ctrl-C
            self.finish()

    def come(self) -> None:
        """Hear that rows were written."""
        self._follower.come()

    def found(self, name: str, verdict: str | None, sha256: str) -> None:
        """Hear of a file that was judged before, and still lies where it came. Any thread."""
        if self._sorter is not None:
            self._sorter.put(name, verdict, sha256)

    def finish(self) -> None:
        """Do what is left, but not for ever, and say what is for the next time."""
        if not self._follower.finish(DRAIN_S):
            self._notice("Some commands were not run yet; the next watch runs them")
        if self._sorter is not None and (left := self._sorter.finish(DRAIN_S)):
            self._notice(f"{left} files are not sorted yet; the next watch sorts them")

    def _sort(self, row: Row) -> Future[Path | None] | None:
        return None if self._sorter is None else self._sorter.put_row(row)

    def _act(self, row: Row, sorted_to: Future[Path | None] | None) -> None:
        commands = commands_for(self._wanted.commands, row)
        if not commands:
            return
        path = self._folder / row.image
        if sorted_to is not None and self._sorter is not None:
            path = self._sorter.wait_for(sorted_to, _SORT_S) or path
        for command in commands:
            trouble = command.run(row, path, timeout=self._wanted.command_timeout)
            self._ran(row, trouble)
