"""From a part to its picture: the scene as light in [0, 1], then the camera.

Defects alter the scene (`defects`), so the camera's vignetting, colour and
noise lie over them as over everything else.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from diffusionad_tools.demo_data import clip, geometry, marking
from diffusionad_tools.demo_data.clip import Direction
from diffusionad_tools.demo_data.geometry import BORE, CHAMFER, HOLES, Hole, Plane, smoothstep
from diffusionad_tools.demo_data.part import Part, picture_coordinates
from diffusionad_tools.demo_data.texture import smooth_noise

Scene = NDArray[np.float32]  # (size, size, 3), RGB, 1 is full scale
Picture = NDArray[np.uint8]  # (size, size, 3), RGB

STEEL = np.array([0.615, 0.625, 0.635], dtype=np.float32)
BELT = np.array([0.150, 0.175, 0.180], dtype=np.float32)


def render(part: Part) -> Picture:
    """Photograph a part without defects."""
    return photograph(render_scene(part), part)


def render_scene(part: Part) -> Scene:
    """The light that the part and the belt around it send to the camera."""
    rng = np.random.default_rng([part.texture_seed, 0])
    x, y = part.coordinates()
    belt = _paint(_belt(x, y, rng) * _shadow(x, y, part.light_direction()), BELT)
    steel = _paint(_steel(x, y, part, rng), STEEL)
    plate = geometry.coverage(geometry.plate_distance(x, y), part.pixel)[..., np.newaxis]
    scene: Scene = belt * (1.0 - plate)
    scene += steel * plate
    for index, hole in enumerate((*HOLES, BORE)):
        if index != part.missing_hole:
            _drill(scene, hole, x, y, part)
    if part.clip is not None:
        _drill(scene, clip.PIN_HOLE, x, y, part)
        if not part.clip.is_missing:
            light = part.light_direction()
            clip.mount(scene, part.clip, x, y, pixel=part.pixel, light=light)
    return scene * _illumination(part)[..., np.newaxis]


def photograph(scene: Scene, part: Part) -> Picture:
    """What the camera makes of a scene: vignetting, white balance, noise, 8 bits."""
    rng = np.random.default_rng([part.texture_seed, 1])
    x, y = picture_coordinates(part.size)
    vignette = 1.0 - (part.vignetting / 2) * (x * x + y * y)
    balance = np.array([1.0 + part.warmth, 1, 1.0 - part.warmth], dtype=np.float32)
    noise = rng.standard_normal(scene.shape, dtype=np.float32) * part.noise
    exposed = scene * vignette[..., np.newaxis] * balance + noise
    picture: Picture = np.rint(np.clip(exposed, 0, 1) * 255).astype(np.uint8)
    return picture


def _paint(brightness: Plane, colour: NDArray[np.float32]) -> Scene:
    """Give every pixel one colour, each at its own brightness."""
    return brightness[..., np.newaxis] * colour


def _illumination(part: Part) -> Plane:
    x, y = picture_coordinates(part.size)
    towards = x * math.cos(part.light_angle) + y * math.sin(part.light_angle)
    return part.brightness * (1.0 + part.light_gradient * towards)


def _belt(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Woven rubber: a faint regular weave, a little uneven."""
    weave: Plane = np.sin(x * 95) * np.sin(y * 95)
    uneven = smooth_noise(rng, 12, 12, x * 0.4 + 0.5, y * 0.4 + 0.5)
    return 1.0 + 0.06 * weave + 0.03 * uneven


def _shadow(x: Plane, y: Plane, light: Direction) -> Plane:
    """Soft shadow of the plate on the belt, on the side away from the light."""
    depth = 0.045
    distance = geometry.plate_distance(x + depth * light[0], y + depth * light[1])
    return 1.0 - 0.65 * smoothstep(0.05, -0.03, distance)


def _steel(x: Plane, y: Plane, part: Part, rng: np.random.Generator) -> Plane:
    """Brightness of the plate as if it had no holes: brushed face, turned boss, edges, marking."""
    light = part.light_direction()
    radius = np.hypot(x, y)
    on_boss = smoothstep(part.pixel, -part.pixel, radius - geometry.BOSS_RADIUS)
    face = _brushed(x, y, part, rng)
    face += on_boss * (_turned(x, y, radius, part, rng) - face)
    face *= _groove(x, y, radius, light)
    face *= _dot_peen(x, y, light)
    return face * _outer_chamfer(x, y, light)


def _brushed(x: Plane, y: Plane, part: Part, rng: np.random.Generator) -> Plane:
    """Long streaks along x, with a soft sheen across them."""
    u, v = x * 0.5 + 0.5, y * 0.5 + 0.5
    fine = smooth_noise(rng, 150, 9, u, v)
    broad = smooth_noise(rng, 40, 4, u, v)
    sheen = smooth_noise(rng, 5, 3, u, v)
    return 1.0 + part.grain * (0.038 * fine + 0.02 * broad) + 0.018 * sheen


def _turned(x: Plane, y: Plane, radius: Plane, part: Part, rng: np.random.Generator) -> Plane:
    """Fine circular grooves; their highlights form two opposed cones facing the light."""
    angle = np.arctan2(y, x)
    light = part.light_angle - part.angle
    cone: Plane = np.cos(angle - light) ** 2
    rings = smooth_noise(rng, 110, 5, angle * (0.5 / math.pi) + 0.5, radius / geometry.BOSS_RADIUS)
    grain = 0.04 * part.grain
    return 0.86 + (0.30 * part.sheen) * cone**3 + grain * rings


def _groove(x: Plane, y: Plane, radius: Plane, light: Direction) -> Plane:
    """The step down around the boss: a dark ring, lit on the wall that faces the light."""
    outward: Plane = (x * light[0] + y * light[1]) / np.maximum(radius, 1e-6)
    inside: Plane = np.exp(-(((radius - geometry.BOSS_RADIUS) / 0.014) ** 2))
    return 1.0 - inside * (0.42 - 0.25 * outward)


def _dot_peen(x: Plane, y: Plane, light: Direction) -> Plane:
    """Dimples: dark on the side of the light, a glint on the other."""
    dx, dy, dot = marking.dimples(x, y)
    bowl = dot * smoothstep(0.62, 0.2, np.hypot(dx, dy))
    away = -(dx * light[0] + dy * light[1])
    return 1.0 + bowl * (0.75 * away - 0.5)


def _outer_chamfer(x: Plane, y: Plane, light: Direction) -> Plane:
    """The broken edge all around, brighter where it faces the light."""
    nx, ny = geometry.plate_outward(x, y)
    edge = smoothstep(-CHAMFER - 0.006, -CHAMFER + 0.006, geometry.plate_distance(x, y))
    return 1.0 + edge * (0.32 * (nx * light[0] + ny * light[1]) - 0.06)


def _drill(scene: Scene, hole: Hole, x: Plane, y: Plane, part: Part) -> None:
    """Cut one hole into the scene, in place: its chamfer, its wall, the dark below."""
    light = part.light_direction()
    distance = hole.distance(x, y)
    near = distance < CHAMFER + 2 * part.pixel
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    distance = distance[window]
    dx, dy = hole.offset(x[window], y[window])
    inward = -(dx * light[0] + dy * light[1]) / np.maximum(np.hypot(dx, dy), 1e-6)

    ring = geometry.coverage(distance - CHAMFER, part.pixel)
    scene[window] *= (1.0 + ring * (0.34 * inward - 0.02))[..., np.newaxis]

    depth = 0.28 * hole.radius
    floor_x, floor_y = x[window] - depth * light[0], y[window] - depth * light[1]
    floor = smoothstep(0.25 * hole.radius, -0.15 * hole.radius, hole.distance(floor_x, floor_y))
    wall = 0.10 + 0.34 * np.maximum(inward, 0) * (1.0 - floor)
    inside = geometry.coverage(distance, part.pixel)[..., np.newaxis]
    below = wall[..., np.newaxis] * (STEEL + 0.25 * floor[..., np.newaxis] * (BELT - STEEL))
    scene[window] += inside * (below - scene[window])
