"""The curves of an evaluation, laid out in the units of an SVG drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionad_client.pages.histogram import Mark
from diffusionad_training.evaluation.metrics import Curve

WIDTH, HEIGHT = 340, 260  # of a plot, without its labels
_TICKS = 5  # steps of an axis


@dataclass(frozen=True)
class Plot:
    """A curve to be drawn, in SVG units; y grows downwards."""

    line: str  # the points of a polyline
    x_ticks: list[Mark]
    y_ticks: list[Mark]


def plot(curve: Curve, x_end: float = 1.0) -> Plot:
    """Lay out a curve from x = 0 to `x_end`, y from 0 to 1."""
    x = np.rint(curve.x / x_end * WIDTH * 2) / 2  # half a unit is finer than the line is wide
    y = np.rint((1 - curve.y) * HEIGHT * 2) / 2
    moved = np.ones(len(x), dtype=bool)  # of the very many points, few are apart from their last
    moved[1:] = (np.diff(x) != 0) | (np.diff(y) != 0)
    points = zip(x[moved], y[moved], strict=True)
    steps = [step / _TICKS for step in range(_TICKS + 1)]
    return Plot(
        line=" ".join(f"{right:g},{down:g}" for right, down in points),
        x_ticks=[Mark(step * WIDTH, f"{step * x_end:.2g}") for step in steps],
        y_ticks=[Mark((1 - step) * HEIGHT, f"{step:.2g}") for step in steps],
    )
