"""The histogram of scores, laid out in the units of an SVG drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BINS = 60
WIDTH, HEIGHT = 960, 190  # of the plot, without its labels
_SMALLEST = 3.0  # height of a bar that holds anything, so that one part in a million is seen


@dataclass(frozen=True)
class Bar:
    """The images of one group, such as a verdict, in one bin; groups are stacked."""

    x: float
    y: float
    width: float
    height: float
    group: str
    label: str


@dataclass(frozen=True)
class Mark:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Stack:
    """Bars and axes, in SVG units; y grows downwards."""

    bars: list[Bar]
    ticks: list[Mark]
    counts: list[Mark]
    end: float  # score at the right edge

    def mark(self, score: float) -> Mark:
        """Place a score on the axis, labelled with itself."""
        return Mark(score / self.end * WIDTH, f"{score:.3g}")


def stack_up(scores: Mapping[str, Sequence[float]], at_least: float = 0.0) -> Stack:
    """Lay out the scores of each group, the first lowest, from 0 to a little above the highest."""
    highest = max((max(values) for values in scores.values() if len(values)), default=0.0)
    end, ticks = axis(max(highest, at_least, 1e-6))
    per_bin = {group: [0] * BINS for group in scores}
    for group, values in scores.items():
        for score in values:
            per_bin[group][min(max(int(score / end * BINS), 0), BINS - 1)] += 1
    tallest = max((sum(column) for column in zip(*per_bin.values(), strict=True)), default=0) or 1
    return Stack(
        bars=_bars(per_bin, tallest, end),
        ticks=[Mark(tick / end * WIDTH, f"{tick:.6g}") for tick in ticks],
        counts=[Mark(HEIGHT * (1 - n / tallest), f"{n:,}") for n in _count_marks(tallest)],
        end=end,
    )


def axis(needed: float) -> tuple[float, list[float]]:
    """Give the end of an axis of scores from 0 to a little above `needed`, and its ticks."""
    roomy = needed * 1.04 if needed <= 0.96 else max(needed, 1.0)  # scores end at 1
    step = _round_step(roomy)
    end = step * math.ceil(roomy / step - 1e-9)
    return end, [i * step for i in range(round(end / step) + 1)]


def _bars(per_bin: Mapping[str, Sequence[int]], tallest: int, end: float) -> list[Bar]:
    width = WIDTH / BINS
    bars = []
    for i in range(BINS):
        top = float(HEIGHT)
        for group, column in per_bin.items():
            if count := column[i]:
                height = max(count / tallest * HEIGHT, _SMALLEST)
                top -= height
                span = f"{i * end / BINS:.3f} to {(i + 1) * end / BINS:.3f}"
                label = f"{count:,} {group}, score {span}"
                bars.append(Bar(i * width + 0.75, top, width - 1.5, height, group, label))
    return bars


def _round_step(end: float) -> float:
    """Give a distance between ticks of 1, 2 or 5 times a power of ten, for five to ten of them."""
    power: float = 10.0 ** math.floor(math.log10(end / 5))
    return next(power * m for m in (1, 2, 5, 10) if end / (power * m) <= 10)


def _count_marks(tallest: int) -> list[int]:
    return sorted({tallest, tallest // 2} - {0})
