"""What differs between two parts of the same product, and between two pictures of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffusionad_tools.demo_data import geometry
from diffusionad_tools.demo_data.clip import Clip, Direction
from diffusionad_tools.demo_data.geometry import Plane


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part on the belt and the light it is seen in. Lengths in units of half a picture."""

    size: int  # pixels; pictures are square
    shift_x: float
    shift_y: float
    angle: float  # radians, clockwise as seen
    scale: float
    light_angle: float  # radians, direction that the light comes from; y is down
    light_gradient: float  # relative fall of brightness over half a picture
    brightness: float
    warmth: float  # white balance: > 0 is redder, < 0 is bluer
    sheen: float  # strength of the turned face's highlights
    grain: float  # strength of the brushing
    vignetting: float  # relative loss of light in the corners
    noise: float  # standard deviation of the sensor's noise, share of full scale
    texture_seed: int
    missing_hole: int | None = None  # index into geometry.HOLES of a hole never drilled
    clip: Clip | None = None  # None: the product has none

    @property
    def pixel(self) -> float:
        """Size of a pixel in the part's units."""
        return 2.0 / self.size / self.scale

    def coordinates(self) -> tuple[Plane, Plane]:
        """Where each pixel's middle lies in the part's own axes, two (size, size) planes."""
        x, y = picture_coordinates(self.size)
        x, y = x - self.shift_x, y - self.shift_y
        cos, sin = math.cos(self.angle) / self.scale, math.sin(self.angle) / self.scale
        return cos * x + sin * y, cos * y - sin * x

    def metal_distance(self, x: Plane, y: Plane) -> Plane:
        """Signed distance to the metal that is seen: that of the plate, without a clip on it."""
        distance = geometry.metal_distance(x, y)
        if self.clip is None or self.clip.is_missing:
            return distance
        return np.maximum(distance, -self.clip.distance(x, y))

    def light_direction(self) -> Direction:
        """Unit vector towards the light, in the part's own axes."""
        angle = self.light_angle - self.angle
        return math.cos(angle), math.sin(angle)


def picture_coordinates(size: int) -> tuple[Plane, Plane]:
    """Where each pixel's middle lies in the picture, from -1 to 1."""
    axis = ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def sample_part(rng: np.random.Generator, size: int) -> Part:
    """Draw a good part as the line makes them."""
    return Part(
        size=size,
        shift_x=rng.uniform(-0.025, 0.025),
        shift_y=rng.uniform(-0.025, 0.025),
        angle=math.radians(rng.uniform(-3.0, 3.0)),
        scale=rng.uniform(0.99, 1.01),
        light_angle=math.radians(rng.uniform(-145.0, -95.0)),
        light_gradient=rng.uniform(0.05, 0.16),
        brightness=rng.uniform(0.88, 1.1),
        warmth=rng.uniform(-0.035, 0.045),
        sheen=rng.uniform(0.75, 1.2),
        grain=rng.uniform(0.75, 1.2),
        vignetting=rng.uniform(0.08, 0.2),
        noise=rng.uniform(0.006, 0.012),
        texture_seed=int(rng.integers(2**32)),
    )
