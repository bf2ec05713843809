"""What a client has done so far, counted: calls, tries, errors by type, latencies, per server.

Bounded: a latency becomes a count in one of some hundred bins, each 5 % wider
than the one before, so that a quantile is right within 2.5 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import Any

_FINEST_S = 1e-4
_STEP = math.log(1.05)


@dataclass(frozen=True)
class Latencies:
    """How long answers took, in seconds; NaN while there was none."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    longest: float


@dataclass(frozen=True)
class ServerStats:
    """What one server was asked for, and what came of it."""

    url: str
    up: bool  # calls are sent to it now
    under_way: int
    tries: int
    answers: int
    errors: Mapping[str, int]  # by the name of their type
    latencies: Latencies  # of its answers


@dataclass(frozen=True)
class Stats:
    """What a client's calls came to since it was made."""

    calls: int
    tries: int  # requests sent for them; more than the calls where some were asked for again
    answers: int
    errors: Mapping[str, int]  # of calls, by the name of their type
    latencies: Latencies  # of whole calls that were answered, retries included
    servers: tuple[ServerStats, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as a document for JSON; None stands where there is no number."""
        document = asdict(self)
        document["servers"] = [*document["servers"]]
        for part in (document, *document["servers"]):
            part["latencies"] = {
                name: None if math.isnan(value) else value
                for name, value in part["latencies"].items()
            }
        return document


@dataclass
class Tally:
    """Counts of one kind of thing, such as the tries at one server. Threads may share it."""

    asked: int = 0
    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    _bins: Counter[int] = field(default_factory=Counter)
    _sum: float = 0.0
    _longest: float = 0.0
    _lock: Lock = field(default_factory=Lock, repr=False)

    def begin(self) -> None:
        """Count one that is asked for."""
        with self._lock:
            self.asked += 1

    def answer(self, seconds: float) -> None:
        """Count one that was answered after `seconds`."""
        with self._lock:
            self.answered += 1
            self._bins[_bin(seconds)] += 1
            self._sum += seconds
            self._longest = max(self._longest, seconds)

    def fail(self, exc: BaseException) -> None:
        """Count one that failed."""
        with self._lock:
            self.errors[type(exc).__name__] += 1

    def latencies(self) -> Latencies:
        """Sum up the answers."""
        with self._lock:
            bins, count, total = sorted(self._bins.items()), self.answered, self._sum
            longest = self._longest if count else math.nan
        p50, p90, p99 = (_quantile(bins, count, q, longest) for q in (0.5, 0.9, 0.99))
        return Latencies(count, total / count if count else math.nan, p50, p90, p99, longest)


def _bin(seconds: float) -> int:
    return max(0, math.ceil(math.log(max(seconds, _FINEST_S) / _FINEST_S) / _STEP))


def _quantile(bins: list[tuple[int, int]], count: int, q: float, longest: float) -> float:
    rank = q * count
    seen = 0
    for number, inside in bins:
        seen += inside
        if seen >= rank:
            return min(_FINEST_S * math.exp((number - 0.5) * _STEP), longest)
    return math.nan
