"""Where a synthetic anomaly lies: random masks, (H, W) bool."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

MASK_EXPONENTS = (0, 5)  # Perlin noise of 2^0 to 2^5 periods along an axis
THRESHOLD = 0.5
PATCHES_EXPONENTS = (1, 3)
PATCHES_STEEPNESS = 1.2  # most of an anomaly shows either well or hardly
PART_SIDES = (0.3, 1.0)  # of a random part, as shares of the image's sides


def perlin_noise(
    height: int, width: int, periods: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gradient noise of Perlin (1985), about [-1, 1]: `periods` lattice cells along each axis."""
    angles = rng.uniform(0, 2 * math.pi, (periods[0] + 1, periods[1] + 1)).astype(np.float32)
    gradients_y, gradients_x = np.cos(angles), np.sin(angles)
    y = np.arange(height) * (periods[0] / height)
    x = np.arange(width) * (periods[1] / width)
    row, column = y.astype(int), x.astype(int)
    # In single precision: in double it takes five times as long, for a threshold.
    dy = (y - row).astype(np.float32)[:, np.newaxis]
    dx = (x - column).astype(np.float32)[np.newaxis]

    def corner(down: int, right: int) -> NDArray[np.float32]:
        lattice = np.ix_(row + down, column + right)
        product: NDArray[np.float32] = gradients_y[lattice] * (dy - down) + gradients_x[lattice] * (
            dx - right
        )
        return product

    fade_y, fade_x = _fade(dy), _fade(dx)
    top, top_right = corner(0, 0), corner(0, 1)
    top += fade_x * (top_right - top)
    bottom, bottom_right = corner(1, 0), corner(1, 1)
    bottom += fade_x * (bottom_right - bottom)
    noise: NDArray[np.float32] = np.float32(math.sqrt(2)) * (top + fade_y * (bottom - top))
    return noise


def random_noise(
    height: int, width: int, exponents: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Perlin noise of 2^k periods along each axis, k drawn for each from first to last exponent."""
    first, last = exponents
    along_y, along_x = rng.integers(first, last + 1, size=2)
    return perlin_noise(height, width, (int(2**along_y), int(2**along_x)), rng)


def perlin_mask(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Blobs of every size, P of Sec. 4.4: Perlin noise, rotated and thresholded."""
    noise = random_noise(height, width, MASK_EXPONENTS, rng)
    rotated = ndimage.rotate(
        noise, angle=rng.uniform(-90, 90), reshape=False, order=1, mode="reflect"
    )
    mask: NDArray[np.bool_] = rotated > THRESHOLD
    return mask


def random_part(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random rectangle of the image: F of Sec. 4.4 for textures, and without foreground masks."""
    sides = rng.uniform(*PART_SIDES, size=2) * (height, width)
    top, left = rng.uniform(0, (height, width) - sides)
    part = np.zeros((height, width), dtype=bool)
    part[int(top) : round(top + sides[0]), int(left) : round(left + sides[1])] = True
    return part


def moved_onto(
    mask: NDArray[np.bool_], foreground: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Shift a mask so that it meets the foreground, and cut off the rest: P and F of Sec. 4.4.

    On a small product a mask that lies anywhere would mostly miss. Neither may be
    empty but the mask, which then stays so.
    """
    if not mask.any():
        return mask
    points, places = np.argwhere(mask), np.argwhere(foreground)
    shift = places[rng.integers(len(places))] - points[rng.integers(len(points))]
    moved: NDArray[np.bool_] = np.roll(mask, tuple(shift), axis=(0, 1)) & foreground
    return moved


def softened(mask: NDArray[np.bool_], deviation: float) -> NDArray[np.float32]:
    """Blur a mask (H, W), not empty, to shares of up to 1; `deviation` in pixels, 0 for none.

    What is thinner than the blur fades beside what is not, as a scratch that runs out does.
    """
    shares: NDArray[np.float32] = mask.astype(np.float32)
    if deviation > 0:
        shares = ndimage.gaussian_filter(shares, deviation)
        shares /= shares.max()
    return shares


def patches(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How much of an anomaly shows at each place, (H, W) in [0, 1]: here all, there nothing."""
    noise = random_noise(height, width, PATCHES_EXPONENTS, rng)
    return np.clip(0.5 + PATCHES_STEEPNESS * noise, 0, 1)


def stroke_mask(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A few thin curved strokes and small spots, as scratches, cracks and pits are."""
    scale = min(height, width)
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        if rng.random() < 0.35:
            rx, ry = scale * rng.uniform(0.006, 0.04, size=2)
            draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=255)
            continue
        heading, bend = rng.uniform(0, 2 * math.pi), rng.normal(0, 0.15)
        step = scale * rng.uniform(0.01, 0.03)
        points = [(x, y)]
        for _ in range(rng.integers(4, 20)):
            heading += bend + rng.normal(0, 0.2)
            x, y = x + step * math.cos(heading), y + step * math.sin(heading)
            points.append((x, y))
        draw.line(points, fill=255, width=max(1, round(scale * rng.uniform(0.004, 0.02))))
    return np.asarray(image) > 0


def _fade(t: NDArray[np.float32]) -> NDArray[np.float32]:
    """Perlin's quintic: zero first and second derivatives at 0 and 1."""
    return t * t * t * (t * (t * 6 - 15) + 10)
