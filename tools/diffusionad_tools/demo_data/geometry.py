"""The drawing of the demo part, as signed distances: negative inside, in units of half a picture.

A part's own axes are x to the right and y down, with the origin at the middle of
the plate. All arrays are float32 and of any one shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]  # one value per pixel

PLATE_HALF = 0.86  # half the plate's side
PLATE_CORNER = 0.14  # radius of the plate's corners
BORE_RADIUS = 0.23
BOSS_RADIUS = 0.46  # the turned face around the bore
CHAMFER = 0.024  # width of every broken edge


@dataclass(frozen=True)
class Hole:
    """A drilled hole, or a slot along x if it has a half length."""

    x: float
    y: float
    radius: float
    half_length: float = 0.0

    def distance(self, x: Plane, y: Plane) -> Plane:
        """Signed distance to the rim."""
        dx, dy = self.offset(x, y)
        return np.hypot(dx, dy) - self.radius

    def offset(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Vector from the nearest point of the hole's centre line."""
        along = x - self.x
        dx = along - np.clip(along, -self.half_length, self.half_length)
        return dx, y - self.y


BORE = Hole(0.0, 0.0, BORE_RADIUS)
HOLES = (
    Hole(-0.63, -0.63, 0.095),
    Hole(0.63, -0.63, 0.095),
    Hole(-0.63, 0.63, 0.095),
    Hole(0.63, 0.63, 0.095),
    Hole(-0.67, 0.0, 0.055),
    Hole(0.67, 0.0, 0.055),
    Hole(0.0, -0.66, 0.05, half_length=0.17),
)


def plate_distance(x: Plane, y: Plane) -> Plane:
    """Signed distance to the plate's outline, a square with round corners."""
    qx, qy = _corner_offset(x, y)
    outside: Plane = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    inside: Plane = np.minimum(np.maximum(qx, qy), 0)
    return outside + inside - PLATE_CORNER


def plate_outward(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Unit vector from the plate's outline outwards, at every point."""
    qx, qy = _corner_offset(x, y)
    corner = (qx > 0) & (qy > 0)
    length = np.maximum(np.hypot(qx, qy), 1e-6)
    nx = np.where(corner, qx / length, (qx >= qy).astype(np.float32))
    ny = np.where(corner, qy / length, (qy > qx).astype(np.float32))
    return np.copysign(nx, x), np.copysign(ny, y)


def metal_distance(x: Plane, y: Plane) -> Plane:
    """Signed distance to the metal: the plate without its bore and holes."""
    distance = np.maximum(plate_distance(x, y), -BORE.distance(x, y))
    for hole in HOLES:
        distance = np.maximum(distance, -hole.distance(x, y))
    return distance


def smoothstep(edge0: float, edge1: float, value: Plane) -> Plane:
    """Rise from 0 at edge0 to 1 at edge1, smoothly; falls if edge1 < edge0."""
    t = np.clip((value - edge0) / (edge1 - edge0), 0, 1)
    return t * t * (3.0 - 2.0 * t)


def coverage(distance: Plane, pixel: float) -> Plane:
    """Share of each pixel that lies inside: antialiasing, given the pixel's size."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def _corner_offset(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    inner = PLATE_HALF - PLATE_CORNER
    return np.abs(x) - inner, np.abs(y) - inner
