"""What is done already, so that a run that goes on does only what is missing.

An image is done if its last row is of the same content, release, thresholds
and settings. A store that names the content of its objects, as buckets do by
their ETag, spares reading what is done. Of millions of rows 34 bytes each are
kept.
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
_JOINED_AT = 4096  # rows that are added
_AGAIN = DeadlineExceededError.__name__  # says nothing of the image: a drive or server was slow


@dataclass(frozen=True)
class Judging:
    """What a result follows from, beside the image's content."""

    release: str
    thresholds: Thresholds
    settings: str  # digest of those that change a result
    retry_failed: bool = False
    by_content: bool = False  # one result an image, whatever it follows from; see `Done`

    def covers(self, earlier: Earlier | None, image: str, *, sha256: str | None) -> bool:
        """Tell whether an image of that content needs no scoring. None: it cannot be read."""
        return earlier is not None and self._wants(earlier, image, sha256) == earlier.key

    def covers_unread(self, earlier: Earlier | None, image: str, etag: str | None) -> bool:
        """Tell the same by what the store says of the content; None: nothing."""
        if earlier is None or etag is None or earlier.by_etag == _NEVER:
            return False
        key = self._wants(earlier, image, _named_by(etag))
        return key is not None and key[0] == earlier.by_etag

    def _wants(self, earlier: Earlier, image: str, content: str | None) -> tuple[int, int] | None:
        if earlier.is_failure:
            return None if self.retry_failed else _key(image, content)
        if self.by_content:
            return _key(image, content)
        limits = self.thresholds
        return _key(image, content, self.release, limits.accept, limits.reject, self.settings)


@dataclass(frozen=True)
class Earlier:
    """What is known of the earlier row of one image."""

    key: tuple[int, int]  # of the image, its content, and what it was judged by
    by_etag: int  # the same of the store's word for the content; _NEVER: there is none
    is_failure: bool


_NEVER = 0


def _key(*parts: object) -> tuple[int, int]:
    return digest("\0".join("" if part is None else str(part) for part in parts))


def _named_by(etag: str) -> str:
    return f"etag {etag}"


@dataclass
class Done:
    """The images of earlier rows, for a `Judging` that goes `by_content` or does not."""

    _names: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # sorted
    _keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), np.uint64))
    _etags: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    _states: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    _seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    _added: dict[int, Row] = field(default_factory=dict)  # by name; those since, before they join
    by_content: bool = False

    @classmethod
    def of(cls, rows: Iterable[Row], *, by_content: bool = False) -> Done:
        """Gather rows, of which each is the last of its image."""
        names, keys, etags, states = array("Q"), array("Q"), array("Q"), array("b")
        for row in rows:
            names.append(digest(row.image)[0])
            keys.extend(_key_of(row, row.sha256, by_content))
            etags.append(
                _NEVER if row.etag is None else _key_of(row, _named_by(row.etag), by_content)[0]
            )
            state = FAILED if row.verdict is None else row.verdict
            states.append(_STATES.index(state))
        order = np.argsort(np.frombuffer(names, np.uint64), kind="stable")
        return cls(
            np.frombuffer(names, np.uint64)[order],
            np.frombuffer(keys, np.uint64).reshape(-1, 2)[order],
            np.frombuffer(etags, np.uint64)[order],
            np.frombuffer(states, np.int8)[order],
            np.zeros(len(order), bool),
            by_content=by_content,
        )

    def __len__(self) -> int:
        return len(self._names)

    def add(self, row: Row) -> None:
        """Add a row of now, which takes the place of an earlier one of its image."""
        self._added[digest(row.image)[0]] = row
        if len(self._added) >= _JOINED_AT:
            self._join()

    def _join(self) -> None:
        """Give the rows that were added the form of the others, which is a tenth in size."""
        stay = ~np.isin(self._names, np.fromiter(self._added, np.uint64))
        new = Done.of(self._added.values(), by_content=self.by_content)
        names = np.concatenate([self._names[stay], new._names])
        order = np.argsort(names, kind="stable")
        self._names = names[order]
        for name in ("_keys", "_etags", "_states", "_seen"):
            both = np.concatenate([getattr(self, name)[stay], getattr(new, name)])
            setattr(self, name, both[order])
        self._added.clear()

    def counts(self) -> Counter[str]:
        """Count the images by verdict, and those that failed."""
        numbers = np.bincount(self._states, minlength=len(_STATES))
        return Counter(dict(zip(_STATES, map(int, numbers), strict=True)))

    def state(self, image: str) -> str | None:
        """Give the verdict of an earlier row, or `FAILED`; None if there is no such row."""
        if self._added and (row := self._added.get(digest(image)[0])) is not None:
            return FAILED if row.verdict is None else row.verdict
        place = self._place(image)
        return None if place is None else _STATES[self._states[place]]

    def see(self, image: str) -> Earlier | None:
        """Note that an image is still there, and give what is known of an earlier row of it."""
        if self._added and (row := self._added.get(digest(image)[0])) is not None:
            return Earlier(_key_of(row, row.sha256, self.by_content), _NEVER, row.verdict is None)
        place = self._place(image)
        if place is None:
            return None
        self._seen[place] = True
        high, low = map(int, self._keys[place])
        is_failure = _STATES[self._states[place]] == FAILED
        return Earlier((high, low), int(self._etags[place]), is_failure)

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


def _key_of(row: Row, content: str | None, by_content: bool) -> tuple[int, int]:
    if row.verdict is not None and not by_content:
        # The rows of before there were settings cannot tell by which they were made.
        if row.settings is None:
            return (_NEVER, _NEVER)
        return _key(row.image, content, row.release, row.accept, row.reject, row.settings)
    return (_NEVER, _NEVER) if row.error_type == _AGAIN else _key(row.image, content)
