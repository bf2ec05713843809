"""Images that come into a folder: each is taken once, when it is complete.

A file is complete when its size and time of change have stood still for a
while. One that was renamed to where it is, as careful writers do, is complete
at once: the system tells of a new file, and not that it was opened or written to.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from diffusionad_client import images
from diffusionad_client.scoring.sources import NONE_YET, READ_S, SourceImage
from diffusionad_client.watching.lookout import Lookout, Walk

SETTLE_S = 1.0
RENAMED_S = 0.1  # for the system to tell of what is written to a new file
# Files of a walk that are looked at before others are, and that are waited for at once: what
# comes now must not queue behind all that was there before.
_LOOKED_AT = 256
_WAITING = 256


class State(NamedTuple):
    """What changes when a file's content does."""

    size: int  # bytes
    mtime_ns: int
    inode: int


def state_of(path: Path) -> State | None:
    """Give the state of a file, or of a link to nothing; None: there is none."""
    for stat in (os.stat, os.lstat):
        try:
            status = stat(path)
        except OSError:
            continue
        return State(status.st_size, status.st_mtime_ns, status.st_ino)
    return None


@dataclass
class _Wait:
    """A file that may not be complete yet."""

    state: State
    until: float  # when it is, if it stands still


class Arrivals:
    """The images of a folder, as they become complete. A `Source` that is never at its end.

    `settle_s` is how long a file must stand still, in seconds, and `timeout`
    how long reading one may take. A name is not given again before `release`.
    Files are compared by their states: what was taken is taken again only when
    it has changed.
    """

    def __init__(
        self,
        folder: Path,
        lookout: Lookout,
        *,
        settle_s: float = SETTLE_S,
        timeout: float = READ_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._lookout = lookout
        self._settle_s = settle_s
        self._timeout = timeout
        self._clock = clock
        self._waiting: dict[str, _Wait] = {}
        self._due: list[tuple[float, int, str]] = []  # when to look at those again
        self._numbers = itertools.count()
        # Digests of names and states that were taken: before the walk that is under way,
        # and since it began. What it does not come to is no longer there, and forgotten.
        self._taken_before: set[int] = set()
        self._taken: set[int] = set()
        self._under_way: dict[str, State] = {}
        self._lock = threading.Lock()

    @property
    def root(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def count(self) -> int | None:
        """None: more always come."""
        return None

    @property
    def waiting(self) -> int:
        """How many files are there that are not complete yet."""
        return len(self._waiting)

    def path(self, name: str) -> Path:
        """Where an image lies."""
        return self._folder / name

    def __iter__(self) -> Iterator[SourceImage]:
        """Give images as they become complete, and `NONE_YET` between them; see `Lookout.event`."""
        while True:
            self._look()
            yield self._next_complete() or NONE_YET

    def is_as_given(self, name: str) -> bool | None:
        """Tell whether an image that was given is still what it was; None: it is gone.

        Any thread.
        """
        with self._lock:
            given = self._under_way.get(name)
        state = state_of(self.path(name))
        return None if state is None else state == given

    def release(self, name: str, *, again: bool = False, at_once: bool = False) -> None:
        """Have no more to do with an image that was given. Any thread.

        `again`: it is to be given again by the next walk, or `at_once`, when it is complete.
        """
        with self._lock:
            state = self._under_way.pop(name, None)
            if again and state is not None:
                self._taken.discard(_digest(name, state))
                self._taken_before.discard(_digest(name, state))
        if again and at_once:
            self._lookout.again(name)

    def _look(self) -> None:
        while (event := self._lookout.event()) is not None:
            self._came(event.name, is_renamed=event.is_new, is_event=True)
        for _ in range(_LOOKED_AT):
            if len(self._waiting) >= _WAITING or (found := self._lookout.found()) is None:
                return
            if found is Walk.BEGINS:
                with self._lock:
                    self._taken_before |= self._taken
                    self._taken = set()
            elif found is Walk.ENDS:
                with self._lock:
                    self._taken_before = set()
            else:
                self._came(found)

    def _came(self, name: str, *, is_event: bool = False, is_renamed: bool = False) -> None:
        if (wait := self._waiting.get(name)) is not None:
            if is_event and not is_renamed:
                wait.until = self._clock() + self._settle_s
            return
        state = state_of(self.path(name))
        if state is None:
            return
        digest = _digest(name, state)
        if digest in self._taken or digest in self._taken_before:
            self._taken.add(digest)
            return
        is_whole = is_renamed and state.size > 0
        self._wait(name, state, min(RENAMED_S, self._settle_s) if is_whole else self._settle_s)

    def _wait(self, name: str, state: State, seconds: float) -> None:
        wait = _Wait(state, self._clock() + seconds)
        self._waiting[name] = wait
        heapq.heappush(self._due, (wait.until, next(self._numbers), name))

    def _next_complete(self) -> SourceImage | None:
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            name = heapq.heappop(self._due)[2]
            if (until := self._waiting[name].until) > now:  # something was written since
                heapq.heappush(self._due, (until, next(self._numbers), name))
                continue
            before, state = self._waiting.pop(name).state, state_of(self.path(name))
            if state is None:
                continue
            with self._lock:
                if name not in self._under_way and state == before:
                    self._under_way[name] = state
                    self._taken.add(_digest(name, state))
                    read = partial(images.read_file, self.path(name), timeout=self._timeout)
                    return SourceImage(name, read)
            self._wait(name, state, self._settle_s)
        return None


def _digest(name: str, state: State) -> int:
    return hash((name, state))
