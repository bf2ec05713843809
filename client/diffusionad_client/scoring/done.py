"""What is done already, so that a run that goes on does only what is missing.

An image is done if its last row is of the same content, release, thresholds
and settings. A file of millions of rows becomes some forty bytes each.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.errors import DeadlineExceededError
from diffusionad_client.scoring.last_lines import digest
from diffusionad_client.scoring.row import Row

FAILED = "failed"
_STATES = (FAILED, *(verdict.value for verdict in Verdict))
_AGAIN = DeadlineExceededError.__name__  # says nothing of the image: a drive or server was slow


@dataclass(frozen=True)
class Judging:
    """What a result follows from, beside the image's content."""

    release: str
    thresholds: Thresholds
    settings: str  # digest of those that change a result

    def key(self, image: str, sha256: str | None) -> str:
        """Name the result of an image that is scored now."""
        limits = self.thresholds
        return _key(image, sha256, self.release, limits.accept, limits.reject, self.settings)


def _key(*parts: object) -> str:
    return "\0".join("" if part is None else str(part) for part in parts)


@dataclass
class Done:
    """The images of earlier rows. Threads may ask at once."""

    judging: Judging | None = None
    retry_failed: bool = False
    _names: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # sorted
    _keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), np.uint64))
    _states: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    _seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    @classmethod
    def of(cls, rows: Iterable[Row], judging: Judging, *, retry_failed: bool = False) -> Done:
        """Gather rows, of which each is the last of its image."""
        names, keys, states = array("Q"), array("Q"), array("b")
        for row in rows:
            names.append(digest(row.image)[0])
            keys.extend(_key_of(row))
            state = FAILED if row.verdict is None else row.verdict
            states.append(_STATES.index(state))
        order = np.argsort(np.frombuffer(names, np.uint64), kind="stable")
        return cls(
            judging,
            retry_failed,
            np.frombuffer(names, np.uint64)[order],
            np.frombuffer(keys, np.uint64).reshape(-1, 2)[order],
            np.frombuffer(states, np.int8)[order],
            np.zeros(len(order), bool),
        )

    def __len__(self) -> int:
        return len(self._names)

    def counts(self) -> Counter[str]:
        """Count the images by verdict, and those that failed."""
        numbers = np.bincount(self._states, minlength=len(_STATES))
        return Counter(dict(zip(_STATES, map(int, numbers), strict=True)))

    def state(self, image: str) -> str | None:
        """Give the verdict of an earlier row, or `FAILED`; None if there is no such row."""
        place = self._place(image)
        return None if place is None else _STATES[self._states[place]]

    def see(self, image: str) -> bool:
        """Note that an image is still there; tell whether there is an earlier row of it."""
        place = self._place(image)
        if place is not None:
            self._seen[place] = True
        return place is not None

    def covers(self, image: str, sha256: str | None) -> bool:
        """Tell whether an image of that content needs no scoring. None: it cannot be read."""
        place = self._place(image)
        if place is None or self.judging is None:
            return False
        if _STATES[self._states[place]] != FAILED:
            wanted = self.judging.key(image, sha256)
        elif self.retry_failed:
            return False
        else:
            wanted = _key(image, sha256)
        return bool(np.array_equal(self._keys[place], np.array(digest(wanted), np.uint64)))

    @property
    def gone(self) -> int:
        """How many images of earlier rows were not seen."""
        return int(len(self._seen) - np.count_nonzero(self._seen))

    def unseen(self, rows: Iterable[Row]) -> Iterator[str]:
        """Name the images that were not seen, of those in rows."""
        for row in rows:
            place = self._place(row.image)
            if place is not None and not self._seen[place]:
                yield row.image

    def _place(self, image: str) -> int | None:
        name = np.uint64(digest(image)[0])
        place = int(np.searchsorted(self._names, name))
        return place if place < len(self._names) and self._names[place] == name else None


def _key_of(row: Row) -> tuple[int, int]:
    if row.verdict is not None:
        key = _key(row.image, row.sha256, row.release, row.accept, row.reject, row.settings)
        # The rows of before there were settings cannot tell by which they were made.
        return digest(key) if row.settings is not None else (0, 0)
    return (0, 0) if row.error_type == _AGAIN else digest(_key(row.image, row.sha256))
