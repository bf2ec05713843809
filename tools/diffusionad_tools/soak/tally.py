"""What a soak has seen, from many threads: answers, refusals, and promises that were broken."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

SCORE_TOLERANCE = 1e-5  # of scores in [0, 1]; batches of another size round otherwise
_SHOWN = 10  # of each kind of broken promise; the rest is counted


@dataclass(frozen=True)
class Expected:
    """What an undisturbed server answered."""

    score: float
    verdict: str
    accept: float
    reject: float


@dataclass(frozen=True)
class GivenAnswer:
    """What a server answered while it was disturbed, for an image of that name."""

    image: str
    release: str
    score: float
    verdict: str


Golden = Mapping[tuple[str, str], Expected]  # (release, image) -> its answer


class SoakTally:
    """Counts what happens, and keeps the first of what must not happen. Any thread."""

    def __init__(self, golden: Golden) -> None:
        self._golden = golden
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()  # kind -> how often
        self.examples: defaultdict[str, list[str]] = defaultdict(list)

    def count(self, what: str, number: int = 1) -> None:
        """Count something that may happen."""
        with self._lock:
            self.counts[what] += number

    def breaks(self, kind: str, example: str) -> None:
        """Note something that must not happen: `kind` is wrong, lost, or taken, or the like."""
        with self._lock:
            self.broken[kind] += 1
            if len(self.examples[kind]) < _SHOWN:
                self.examples[kind].append(example)

    def answered(self, what: str, answer: GivenAnswer) -> None:
        """Count an answer, and hold it against the golden run's."""
        self.count(what)
        expected = self._golden.get((answer.release, answer.image))
        if expected is None:
            self.breaks("wrong", f"{answer.image}: of the release {answer.release!r}, unknown here")
        elif not abs(answer.score - expected.score) <= SCORE_TOLERANCE:
            self.breaks(
                "wrong",
                f"{answer.image}: scored {answer.score!r} by {answer.release}, "
                f"{expected.score!r} in the golden run",
            )
        elif answer.verdict != expected.verdict and not _on_the_line(expected):
            self.breaks(
                "wrong",
                f"{answer.image}: {answer.verdict} by {answer.release}, {expected.verdict} in the "
                "golden run",
            )


def _on_the_line(expected: Expected) -> bool:
    """Tell whether a score is so near to a threshold that rounding decides."""
    limits = (expected.accept, expected.reject)
    return any(abs(expected.score - limit) <= SCORE_TOLERANCE for limit in limits)
