"""What a synthetic anomaly shows: A of Eq. 12, an RGB uint8 image (H, W, 3)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from diffusionad_training.synthesis.masks import perlin_noise, random_noise

RGB = NDArray[np.uint8]


def texture(textures: NDArray[np.uint8], height: int, width: int, rng: np.random.Generator) -> RGB:
    """An augmented piece (height, width, 3) of a texture out of (N, H, W, 3), H and W as large."""
    chosen = textures[rng.integers(len(textures))]
    top = rng.integers(0, chosen.shape[0] - height + 1)
    left = rng.integers(0, chosen.shape[1] - width + 1)
    return augment(chosen[top : top + height, left : left + width], rng)


def shuffled_self(image: RGB, grid: int, rng: np.random.Generator) -> RGB:
    """The image itself, augmented, cut into grid x grid tiles and shuffled. Sec. 4.4."""
    height, width = image.shape[0] // grid, image.shape[1] // grid
    augmented = augment(image, rng)
    tiles = augmented[: height * grid, : width * grid].reshape(grid, height, grid, width, 3)
    tiles = tiles.swapaxes(1, 2).reshape(grid * grid, height, width, 3)
    tiles = tiles[rng.permutation(grid * grid)]
    shuffled = tiles.reshape(grid, grid, height, width, 3).swapaxes(1, 2)
    out = augmented.copy()
    out[: height * grid, : width * grid] = shuffled.reshape(height * grid, width * grid, 3)
    return out


def warped_self(image: RGB, rng: np.random.Generator) -> RGB:
    """The image bent out of shape by a smooth field, as bent and torn parts are."""
    height, width = image.shape[:2]
    periods = int(2 ** rng.integers(2, 5))
    reach = min(height, width) * rng.uniform(0.03, 0.12)  # pixels, at the most
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y += reach * perlin_noise(height, width, (periods, periods), rng)
    x += reach * perlin_noise(height, width, (periods, periods), rng)
    channels = [
        ndimage.map_coordinates(image[..., c], (y, x), order=1, mode="reflect") for c in range(3)
    ]
    warped: RGB = np.stack(channels, axis=-1)
    return warped


def procedural(image: RGB, rng: np.random.Generator) -> RGB:
    """A generated surface: an even colour or the image's own shades, under soft noise.

    Half of them darken or brighten the image itself, as stains and dents do;
    the others are a material of their own in colours near the image's.
    """
    height, width = image.shape[:2]
    noise = random_noise(height, width, (1, 6), rng)
    relief = rng.uniform(5, 60) * noise[..., np.newaxis]
    if rng.random() < 0.5:
        offset = rng.choice([-1, 1]) * rng.uniform(25, 110)
        tint = rng.normal(0, 15, size=3) if rng.random() < 0.5 else 0.0
        surface = image + offset + tint + relief
    else:
        pixel = image[rng.integers(height), rng.integers(width)].astype(float)
        colour = pixel + rng.normal(0, 50) + rng.normal(0, 20, size=3) * (rng.random() < 0.5)
        surface = colour + relief
    clipped: RGB = np.clip(surface, 0, 255).astype(np.uint8)
    return clipped


def augment(image: RGB, rng: np.random.Generator) -> RGB:
    """Apply three random changes of colour or geometry out of AUGMENTATIONS."""
    picture = Image.fromarray(image)
    for index in rng.choice(len(AUGMENTATIONS), size=3, replace=False):
        picture = AUGMENTATIONS[index](picture, rng)
    return np.asarray(picture)


Augmentation = Callable[[Image.Image, np.random.Generator], Image.Image]


def _brightness(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.5, 1.5))


def _contrast(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(rng.uniform(0.5, 2.0))


def _sharpness(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Sharpness(picture).enhance(rng.uniform(0.0, 3.0))


def _solarize(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.solarize(picture, int(rng.integers(32, 128)))


def _posterize(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.posterize(picture, int(rng.integers(2, 6)))


def _invert(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.invert(picture)


def _equalize(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.equalize(picture)


def _hue(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    channels = picture.split()
    return Image.merge("RGB", [channels[index] for index in rng.permutation(3)])


def _rotate(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    # Mirrored and turned by quarters: no empty corners, unlike a free angle.
    picture = ImageOps.mirror(picture) if rng.random() < 0.5 else ImageOps.flip(picture)
    return Image.fromarray(np.rot90(np.asarray(picture), rng.integers(4)).copy())


AUGMENTATIONS: tuple[Augmentation, ...] = (
    _brightness,
    _contrast,
    _sharpness,
    _solarize,
    _posterize,
    _invert,
    _equalize,
    _hue,
    _rotate,
)
