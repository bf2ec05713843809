"""The clip of the second product: a black moulded holder, pressed into a hole of the plate.

It has a place of its own and a right way round: the brass stud points to the
plate's upper edge, the three ribs to its lower one. The hole, for a pin under
the clip's middle, is only seen if the clip is missing. Lengths in units of
half a picture, as in `geometry`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusionad_tools.demo_data.geometry import Hole, Plane, coverage, smoothstep

Direction = tuple[float, float]  # unit vector

X, Y = 0.50, -0.38  # its middle, on the plate: clear of boss and holes however it is turned
HALF_WIDTH, HALF_LENGTH = 0.082, 0.130
PIN_HOLE = Hole(X, Y, 0.026)

_CORNER = 0.028
_BEVEL = 0.017
_STUD_Y, _STUD_RADIUS = -0.075, 0.040
_RIBS = (0.015, 0.050, 0.085)  # along the clip
_RIB_WIDTH = 0.011
_HEIGHT = 0.032  # above the plate: the length of its shadow
_MOULDED = np.array([0.115, 0.115, 0.125], dtype=np.float32)
_BRASS = np.array([0.690, 0.560, 0.300], dtype=np.float32)


@dataclass(frozen=True)
class Clip:
    """How the clip of one part is mounted, or that it was forgotten."""

    turn: float  # radians, from the right way round, clockwise as seen
    shine: float = 1.0  # strength of its highlights
    is_missing: bool = False

    def axes(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Where points of the plate lie in the clip's own axes."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        dx, dy = x - X, y - Y
        return cos * dx + sin * dy, cos * dy - sin * dx

    def distance(self, x: Plane, y: Plane) -> Plane:
        """Signed distance of points of the plate to the clip's outline, negative inside."""
        return _outline(*self.axes(x, y))


def mount(
    scene: NDArray[np.float32],
    clip: Clip,
    x: Plane,
    y: Plane,
    *,
    pixel: float,
    light: Direction,
) -> None:
    """Draw the clip and its shadow into a scene (size, size, 3), in place.

    x, y are the pixels' places on the plate and `light` points to the light,
    both in the part's own axes; `pixel` is a pixel's size there.
    """
    near = np.hypot(x - X, y - Y) < HALF_LENGTH + HALF_WIDTH + _HEIGHT
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x, y = x[window], y[window]

    shadowed = clip.distance(x + _HEIGHT * light[0], y + _HEIGHT * light[1])
    scene[window] *= (1.0 - 0.55 * smoothstep(0.022, -0.022, shadowed))[..., np.newaxis]

    u, v = clip.axes(x, y)
    cos, sin = math.cos(clip.turn), math.sin(clip.turn)
    own_light = (cos * light[0] + sin * light[1], cos * light[1] - sin * light[0])
    inside = coverage(_outline(u, v), pixel)[..., np.newaxis]
    scene[window] += inside * (_body(u, v, own_light, clip.shine) - scene[window])

    head = np.hypot(u, v - _STUD_Y) - _STUD_RADIUS
    covered = coverage(head, pixel)[..., np.newaxis]
    scene[window] += covered * (_stud(u, v, own_light, clip.shine) - scene[window])


def _outline(u: Plane, v: Plane) -> Plane:
    qx, qy = np.abs(u) - (HALF_WIDTH - _CORNER), np.abs(v) - (HALF_LENGTH - _CORNER)
    outside: Plane = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    inside: Plane = np.minimum(np.maximum(qx, qy), 0)
    return outside + inside - _CORNER


def _body(u: Plane, v: Plane, light: Direction, shine: float) -> NDArray[np.float32]:
    """Moulded plastic: a flat top, bevelled edges, three ribs across and a seat for the stud."""
    edge = smoothstep(-_BEVEL, -0.25 * _BEVEL, _outline(u, v))
    nx, ny = _outward(u, v)
    slope = edge * (nx * light[0] + ny * light[1])
    for place in _RIBS:
        rise = (v - place) / _RIB_WIDTH
        across = smoothstep(HALF_WIDTH - 0.020, HALF_WIDTH - 0.028, np.abs(u))
        slope = slope + 1.3 * across * rise * np.exp(-(rise**2)) * light[1]
    seat = np.exp(-(((np.hypot(u, v - _STUD_Y) - _STUD_RADIUS - 0.006) / 0.008) ** 2))
    glow = 1.0 + shine * (2.6 * np.maximum(slope, 0) + 0.45 * np.minimum(slope, 0)) - 0.45 * seat
    # A broad reflection of the lamp lies over the side that faces it.
    glow += 0.5 * shine * smoothstep(-0.12, 0.14, u * light[0] + v * light[1])
    painted: NDArray[np.float32] = glow[..., np.newaxis] * _MOULDED
    return painted


def _stud(u: Plane, v: Plane, light: Direction, shine: float) -> NDArray[np.float32]:
    """A domed head of brass, with one highlight towards the light."""
    dx, dy = u / _STUD_RADIUS, (v - _STUD_Y) / _STUD_RADIUS
    facing = dx * light[0] + dy * light[1]
    spot = np.exp(-(((dx - 0.42 * light[0]) ** 2 + (dy - 0.42 * light[1]) ** 2) / 0.09))
    rim = smoothstep(0.72, 1.0, np.hypot(dx, dy))
    brightness = (0.92 + 0.34 * facing) * (1.0 - 0.35 * rim)
    white = 0.42 * shine * spot
    painted: NDArray[np.float32] = brightness[..., np.newaxis] * _BRASS + white[..., np.newaxis]
    return painted


def _outward(u: Plane, v: Plane) -> tuple[Plane, Plane]:
    """Unit vector away from the outline, as on a rectangle with round corners."""
    qx, qy = np.abs(u) - (HALF_WIDTH - _CORNER), np.abs(v) - (HALF_LENGTH - _CORNER)
    corner = (qx > 0) & (qy > 0)
    length = np.maximum(np.hypot(qx, qy), 1e-6)
    nx = np.where(corner, qx / length, (qx >= qy).astype(np.float32))
    ny = np.where(corner, qy / length, (qy > qx).astype(np.float32))
    return np.copysign(nx, u), np.copysign(ny, v)
