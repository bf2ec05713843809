"""The scatter of two releases' scores, laid out in the units of an SVG drawing."""

from __future__ import annotations

import random
from dataclasses import dataclass

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.comparison.pairing import Points
from diffusionad_client.pages.histogram import Mark, axis

SIDE = 620  # of the plot, without its labels
MAX_POINTS = 4000  # drawn: a browser is slow with more


@dataclass(frozen=True)
class Point:
    """One image. `verdict` is the candidate's if it differs from the base's, else empty."""

    x: float
    y: float
    verdict: str


@dataclass(frozen=True)
class Scatter:
    """Everything to be drawn, in SVG units; y grows downwards."""

    points: list[Point]  # those whose verdict changed last, so that they lie on top
    x_ticks: list[Mark]
    y_ticks: list[Mark]
    x_accept: Mark
    x_reject: Mark
    y_accept: Mark
    y_reject: Mark
    left_out: int  # points that are not drawn, all of them without a change


def scatter(points: Points, base: Thresholds, candidate: Thresholds) -> Scatter:
    """Lay out the points: the base's score to the right, the candidate's upwards, one scale.

    Every changed verdict is drawn as far as MAX_POINTS goes; of the others a
    choice that is random, but the same every time.
    """
    needed = max([*points.base, *points.candidate, base.reject, candidate.reject, 1e-6])
    end, ticks = axis(needed)
    changed = [i for i, verdict in enumerate(points.verdict) if verdict]
    same = [i for i, verdict in enumerate(points.verdict) if not verdict]
    draw = random.Random(0)
    changed_shown = sorted(draw.sample(changed, min(len(changed), MAX_POINTS)))
    room = MAX_POINTS - len(changed_shown)
    same_shown = sorted(draw.sample(same, min(len(same), room)))

    def right(score: float) -> float:
        return score / end * SIDE

    def up(score: float) -> float:
        return SIDE - right(score)

    return Scatter(
        points=[
            Point(right(points.base[i]), up(points.candidate[i]), points.verdict[i])
            for i in (*same_shown, *changed_shown)
        ],
        x_ticks=[Mark(right(tick), f"{tick:.6g}") for tick in ticks],
        y_ticks=[Mark(up(tick), f"{tick:.6g}") for tick in ticks],
        x_accept=Mark(right(base.accept), f"{base.accept:.3g}"),
        x_reject=Mark(right(base.reject), f"{base.reject:.3g}"),
        y_accept=Mark(up(candidate.accept), f"{candidate.accept:.3g}"),
        y_reject=Mark(up(candidate.reject), f"{candidate.reject:.3g}"),
        left_out=len(points.verdict) - len(same_shown) - len(changed_shown),
    )
