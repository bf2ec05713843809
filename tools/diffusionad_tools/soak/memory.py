"""Resident memory of processes over time, and whether it grows.

A process that is started anew begins a life of its own: lives are compared
within themselves, without their beginning, in which memory is filled that is
then used again. The slope is that of a line through each life, one for all.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_MIB = 1 << 20
_BEGINNING = 0.3  # share of a life
# More growth than this over the whole soak is no noise.
ALLOWED_SHARE, ALLOWED_MIB = 0.05, 32.0


@dataclass(frozen=True)
class MemorySample:
    """Resident memory at one moment. `life` tells one process from the one in its place."""

    at: float  # s
    life: int
    resident: int  # bytes


@dataclass(frozen=True)
class Growth:
    """How the memory of one kind of process went over a soak."""

    median_mib: float
    mib_per_hour: float
    mib: float  # over the whole soak, if it went on like that
    flat: bool


class Memory:
    """Samples by the kind of process that they are of."""

    def __init__(self) -> None:
        self._samples: defaultdict[str, list[MemorySample]] = defaultdict(list)

    def add(self, kind: str, at: float, life: int, resident: int) -> None:
        """Keep a sample; one of 0 bytes, of a process that is gone, is none."""
        if resident > 0:
            self._samples[kind].append(MemorySample(at, life, resident))

    def growths(self, seconds: float) -> dict[str, Growth]:
        """Say how each kind has grown over a soak of so many seconds."""
        return {kind: growth(samples, seconds) for kind, samples in self._samples.items()}


def growth(samples: Sequence[MemorySample], seconds: float) -> Growth:
    """Fit the slope that all lives have in common. `samples` are in order, and at least one."""
    lives: defaultdict[int, list[MemorySample]] = defaultdict(list)
    for sample in samples:
        lives[sample.life].append(sample)
    above = below = 0.0
    for life in lives.values():
        begun = life[0].at + _BEGINNING * (life[-1].at - life[0].at)
        settled = [sample for sample in life if sample.at >= begun]
        at = statistics.fmean(sample.at for sample in settled)
        resident = statistics.fmean(sample.resident for sample in settled)
        above += sum((s.at - at) * (s.resident - resident) for s in settled)
        below += sum((s.at - at) ** 2 for s in settled)
    per_second = above / below / _MIB if below else 0.0
    median = statistics.median(sample.resident for sample in samples) / _MIB
    grown = per_second * seconds
    allowed = max(ALLOWED_SHARE * median, ALLOWED_MIB)
    return Growth(median, per_second * 3600, grown, flat=grown <= allowed)
