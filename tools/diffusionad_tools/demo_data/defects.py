"""What can go wrong with a part, each as one function and one entry in `DEFECTS`.

A defect takes the scene of a good part and gives back the altered scene and
the mask of what it altered. It lies on the metal, never on the belt, over a
hole or on the clip, and draws all it varies from the generator it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from diffusionad_tools.demo_data import geometry
from diffusionad_tools.demo_data.clip import Clip
from diffusionad_tools.demo_data.geometry import CHAMFER, HOLES, Plane, smoothstep
from diffusionad_tools.demo_data.part import Part
from diffusionad_tools.demo_data.rendering import Scene, render_scene
from diffusionad_tools.demo_data.texture import smooth_noise

Mask = NDArray[np.bool_]  # (size, size)
Defect = Callable[[Scene, Part, np.random.Generator], tuple[Scene, Mask]]

VISIBLE = 0.1  # share of a defect's full strength from which a pixel counts as defective

OIL = (0.42, 0.37, 0.28)  # what a stain leaves of red, green and blue at full strength
RUST = (0.70, 0.45, 0.29)
HEAT_TINT = (0.58, 0.62, 0.80)


def scratch(scene: Scene, part: Part, rng: np.random.Generator) -> tuple[Scene, Mask]:
    """A slightly curved line: a dark furrow with a bright burr along one side."""
    along, across = _local_axes(part, rng, margin=0.04)
    half_length = rng.uniform(0.14, 0.5)
    bend = rng.uniform(-0.25, 0.25)
    width = rng.uniform(0.007, 0.013)
    distance = (across - bend * along**2) / np.sqrt(1.0 + (2 * bend * along) ** 2)
    taper = smoothstep(1.0, 0.5, np.abs(along) / half_length) * _on_metal(part)
    furrow = np.exp(-((distance / width) ** 2)) * taper
    burr = np.exp(-((distance / width - 1.7) ** 2)) * taper
    dark, bright = rng.uniform(0.30, 0.5), rng.uniform(0.3, 0.5)
    shade = 1.0 - dark * furrow + bright * burr
    return scene * shade[..., np.newaxis], np.maximum(furrow, burr) > VISIBLE


def dent(scene: Scene, part: Part, rng: np.random.Generator) -> tuple[Scene, Mask]:
    """A shallow hollow: dark on the side of the light, bright on the other."""
    radius = rng.uniform(0.055, 0.14)
    u, v = _local_axes(part, rng, margin=0.7 * radius)
    stretch = rng.uniform(1.0, 1.5)
    u, v = u / (radius * stretch), v / radius
    squared = u * u + v * v
    bowl = np.exp(-1.8 * squared)
    slope_y, slope_x = np.gradient(bowl)  # along the picture, where the light is measured too
    slope = slope_x * math.cos(part.light_angle) + slope_y * math.sin(part.light_angle)
    slope *= rng.uniform(0.42, 0.6) / np.abs(slope).max()
    inside = smoothstep(1.9, 1.2, squared) * _on_metal(part)
    shade = 1.0 + inside * (slope - 0.08 * bowl)
    return scene * shade[..., np.newaxis], inside > 0.5


def stain(scene: Scene, part: Part, rng: np.random.Generator) -> tuple[Scene, Mask]:
    """A soft-edged discolouration of irregular outline: oil, rust or heat tint."""
    radius = rng.uniform(0.11, 0.26)
    u, v = _local_axes(part, rng, margin=0.5 * radius)
    ragged = _blotches(rng, 10, u, v) + 0.5 * _blotches(rng, 22, u, v)
    mottled = _blotches(rng, 36, u + v, u - v) + _blotches(rng, 50, u, v)
    u, v = u / radius, v / (radius * rng.uniform(0.6, 1.0))
    depth = 1.0 - np.hypot(u, v) + 0.2 * ragged + 0.04 * mottled
    softness = rng.uniform(0.5, 0.9)
    spread = smoothstep(0.0, softness, depth) * smoothstep(1.8, 1.5, np.hypot(u, v))
    strength = spread * _on_metal(part) * rng.uniform(0.75, 1.0)
    tint = np.array((OIL, RUST, HEAT_TINT)[rng.integers(3)], dtype=np.float32)
    patchy = np.clip(strength * (1.0 + 0.07 * mottled), 0, 1)[..., np.newaxis]
    return scene * (1.0 - patchy * (1.0 - tint)), strength > VISIBLE


def missing_hole(scene: Scene, part: Part, rng: np.random.Generator) -> tuple[Scene, Mask]:
    """One of the holes, or the slot, was never drilled: plain brushed metal stands there."""
    index = int(rng.integers(len(HOLES)))
    distance = HOLES[index].distance(*part.coordinates())
    return render_scene(replace(part, missing_hole=index)), distance < CHAMFER


def missing_component(scene: Scene, part: Part, rng: np.random.Generator) -> tuple[Scene, Mask]:
    """The clip was never pressed in: bare brushed metal, and the open hole for its pin."""
    clip = _clip_of(part)
    bare = render_scene(replace(part, clip=replace(clip, is_missing=True)))
    return bare, clip.distance(*part.coordinates()) < 0


def turned_component(scene: Scene, part: Part, rng: np.random.Generator) -> tuple[Scene, Mask]:
    """The clip sits where it should, but turned, by 40 degrees at the least.

    Defective is all that either the clip or the right clip covers.
    """
    clip = _clip_of(part)
    by = math.radians(rng.uniform(40.0, 180.0)) * rng.choice((-1.0, 1.0))
    turned = replace(clip, turn=clip.turn + by)
    x, y = part.coordinates()
    covered = np.minimum(clip.distance(x, y), turned.distance(x, y)) < 0
    return render_scene(replace(part, clip=turned)), covered


DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "dent": dent,
    "stain": stain,
    "missing_hole": missing_hole,
}

# Of products that have a clip, besides those above.
CLIP_DEFECTS: dict[str, Defect] = {
    "missing_component": missing_component,
    "turned_component": turned_component,
}


def _clip_of(part: Part) -> Clip:
    assert part.clip is not None  # CLIP_DEFECTS are those of products that have one
    return part.clip


def _on_metal(part: Part) -> Plane:
    """Share of each pixel that is metal, chamfers included."""
    return geometry.coverage(part.metal_distance(*part.coordinates()), part.pixel)


def _blotches(rng: np.random.Generator, cells: int, x: Plane, y: Plane) -> Plane:
    """Noise alike in all directions, of so many cells across the picture."""
    return smooth_noise(rng, cells, cells, x * 0.5 + 0.5, y * 0.5 + 0.5)


def _local_axes(part: Part, rng: np.random.Generator, margin: float) -> tuple[Plane, Plane]:
    """Axes at a random spot and turn on the metal, at least `margin` from every edge."""
    limit = geometry.PLATE_HALF
    while True:
        spot = rng.uniform(-limit, limit, 2).astype(np.float32)
        if part.metal_distance(spot[:1], spot[1:])[0] < -margin:
            break
    x, y = part.coordinates()
    angle = rng.uniform(0, math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = x - spot[0], y - spot[1]
    return cos * dx + sin * dy, cos * dy - sin * dx
