"""Blend a source into a normal image under a mask: Eq. 12."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diffusionad_training.config import SynthesisConfig
from diffusionad_training.errors import ConfigError
from diffusionad_training.synthesis import masks, sources
from diffusionad_training.synthesis.components import misplace
from diffusionad_training.synthesis.relocation import relocate
from diffusionad_training.synthesis.surfaces import surface_mask
from diffusionad_training.synthesis.windows import Window, choose_window

MIN_PIXELS = 8  # a mask smaller than this teaches nothing
MIN_CONTRAST = 6.0  # grey levels; what nobody can see would teach to reject good parts
NEIGHBOURHOOD = 2.0  # standard deviation, pixels at 256, of what is around a pixel
EDGE = 0.5  # of the anomaly's strength: where less of it shows, a soft edge is not marked
LEAST_SIDE = 32  # pixels, of the part of an image that an anomaly is made in
TRIES = 20


def blend(
    normal: NDArray[np.uint8],
    source: NDArray[np.uint8],
    shares: NDArray[np.float32],
    opacity: float,
) -> NDArray[np.uint8]:
    """Lay a source over a normal image. Eq. 12.

        S = beta * (M . N) + (1 - beta) * (M . A) + (1 - M) . N

    normal, source  (H, W, 3) uint8;   opacity  beta in [0, 1)
    shares          (H, W) in [0, 1]   M; between 0 and 1 where an edge is soft
    """
    of_source = (1 - opacity) * shares[..., np.newaxis]
    mixed = np.rint(normal + of_source * (source.astype(np.float32) - normal))
    blended: NDArray[np.uint8] = mixed.astype(np.uint8)
    return blended


class Anomaly(NamedTuple):
    """An image with a synthetic anomaly."""

    image: NDArray[np.uint8]  # (H, W, 3)
    mask: NDArray[np.float32]  # (H, W) in {0, 1}
    misplaced: bool  # it is a whole component, see components.py


class AnomalySynthesiser:
    """Make synthetic anomalies as configured; `textures` is (N, H, W, 3) uint8 or None.

    Raises `ConfigError` when textures are asked for and none are given.
    """

    def __init__(self, config: SynthesisConfig, textures: NDArray[np.uint8] | None) -> None:
        if config.texture_share > 0 and (textures is None or len(textures) == 0):
            raise ConfigError(
                f"synthesis has texture_share {config.texture_share} but no textures; "
                "give a folder with --textures, or set the share to 0"
            )
        self._config = config
        self._textures = textures
        self._sources = _normalised(*config.source_shares)
        self._masks = _normalised(*config.mask_shares)

    def synthesise(
        self,
        image: NDArray[np.uint8],
        rng: np.random.Generator,
        foreground: NDArray[np.bool_] | None = None,
    ) -> Anomaly:
        """Give the image (H, W, 3) uint8 an anomaly.

        `foreground` (H, W), if given, is where the product is: the anomaly lies on it.
        """
        height, width = image.shape[:2]
        part = self._part((height, width), rng, foreground)
        anomalous, mask = image.copy(), np.zeros(image.shape[:2], dtype=np.float32)
        anomalous[part], mask[part], misplaced = self._anomaly_in(
            image[part],
            self._least_contrast(image)[part],
            rng,
            None if foreground is None else foreground[part],
        )
        return Anomaly(anomalous, mask, misplaced)

    def _part(
        self,
        shape: tuple[int, int],
        rng: np.random.Generator,
        foreground: NDArray[np.bool_] | None,
    ) -> Window:
        """Choose the part of the image that an anomaly is made in; each octave is as likely."""
        if self._config.least_scale == 1:
            return slice(None), slice(None)
        scale = self._config.least_scale ** rng.random()
        height, width = (min(side, max(round(scale * side), LEAST_SIDE)) for side in shape)
        return choose_window(shape, (height, width), rng, foreground)

    def _anomaly_in(
        self,
        image: NDArray[np.uint8],
        least: NDArray[np.float32],
        rng: np.random.Generator,
        foreground: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], bool]:
        """Make one anomaly anywhere in an image, of the `least` contrast (H, W); see `Anomaly`."""
        for share, change in (
            (self._config.component_share, misplace),
            (self._config.relocation_share, relocate),
        ):
            if share and rng.random() < share:
                anomalous, moved = change(image, rng, foreground)
                if moved.any():
                    return anomalous, moved, change is misplace
        height, width = image.shape[:2]
        for _ in range(TRIES):
            mask = self._mask(image, rng, foreground)
            source = self._source(image, rng)
            if is_grey(image):
                source = to_grey(source)
            shares = masks.softened(mask, rng.uniform(0, self._config.soft_edge))
            mask = shares >= EDGE
            if rng.random() < self._config.patchy_share:
                shares *= masks.patches(height, width, rng)
            anomalous = blend(image, source, shares, rng.uniform(*self._config.opacity))
            difference = np.abs(anomalous[mask].astype(np.int16) - image[mask])
            if mask.sum() >= MIN_PIXELS and difference.mean() >= least[mask].mean():
                break
        return anomalous, mask, False

    def _least_contrast(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The contrast that an anomaly needs to be seen at each pixel, (H, W), in grey levels."""
        visibility = self._config.visibility
        if visibility == 0:
            return np.full(image.shape[:2], MIN_CONTRAST, dtype=np.float32)
        return np.maximum(MIN_CONTRAST, visibility * roughness(image))

    def _mask(
        self,
        image: NDArray[np.uint8],
        rng: np.random.Generator,
        foreground: NDArray[np.bool_] | None,
    ) -> NDArray[np.bool_]:
        share = self._config.surface_share
        if share and rng.random() < share:
            mask = surface_mask(image, rng, foreground)
            if mask.sum() >= MIN_PIXELS:
                return mask
        height, width = image.shape[:2]
        makers = (masks.perlin_mask, masks.stroke_mask)
        make = makers[rng.choice(len(makers), p=self._masks)]
        within = make is masks.perlin_mask and self._config.within_part
        for _ in range(TRIES):
            mask = make(height, width, rng)
            if foreground is not None:
                mask = masks.moved_onto(mask, foreground, rng)
            elif within:
                mask &= masks.random_part(height, width, rng)
            if mask.sum() >= MIN_PIXELS:
                return mask
        raise RuntimeError(f"{make.__name__} gave {TRIES} empty masks of {height}x{width} pixels")

    def _source(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        makers = (self._texture, self._shuffled_self, sources.procedural, sources.warped_self)
        return makers[rng.choice(len(makers), p=self._sources)](image, rng)

    def _texture(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        assert self._textures is not None  # or its share is 0, which the constructor sees to
        height, width = image.shape[:2]
        return sources.texture(self._textures, height, width, rng)

    def _shuffled_self(
        self, image: NDArray[np.uint8], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        return sources.shuffled_self(image, self._config.grid, rng)


def roughness(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Standard deviation of the grey levels around each pixel: (H, W, 3) -> (H, W)."""
    grey = image.mean(axis=-1, dtype=np.float32)
    reach = NEIGHBOURHOOD * min(grey.shape) / 256
    mean, square = (ndimage.gaussian_filter(values, reach) for values in (grey, grey**2))
    deviation: NDArray[np.float32] = np.sqrt(np.maximum(square - mean**2, 0))
    return deviation


def is_grey(image: NDArray[np.uint8]) -> bool:
    """Whether an RGB image carries no colour, as from a monochrome camera."""
    return bool((image[..., :1] == image[..., 1:]).all())


def to_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the colour out: on a grey product it would give the anomaly away by itself."""
    grey = np.rint(image.mean(axis=-1, keepdims=True)).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)


def _normalised(*shares: float) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.asarray(shares, dtype=np.float64)
    weights /= weights.sum()
    return weights
