"""Masks that follow the image: an area of one look, out to its edges.

A coat, a liquid or a stain that reaches a rim ends where the surface under it ends,
and what is missing from it leaves all of it bare. Blobs hardly ever follow an edge of
the product. A segmentation that has seen blobs alone marks the outline of such a
defect, and takes its inside for a surface like any other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOLERANCES = (8.0, 40.0)  # grey levels by which a surface's colours may differ from its seed's
# Of a surface, as shares of what it is looked for on. Around larger ones a window shows too little
# to compare them with.
AREAS = (0.003, 0.35)
GRAIN = 1.0  # standard deviation, pixels at 128: what is finer is no edge
TRIES = 8


def surface_mask(
    image: NDArray[np.uint8], rng: np.random.Generator, foreground: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Grow an area (H, W) of one look in an image (H, W, 3), from a random place of it.

    With a foreground (H, W) it lies on that. Empty where none of a fitting size is met.
    """
    height, width = image.shape[:2]
    coarse = image[::2, ::2].astype(np.float32)  # a quarter of the work, for edges to two pixels
    grain = GRAIN * min(coarse.shape[:2]) / 128
    look = ndimage.gaussian_filter(coarse, (grain, grain, 0))
    there = np.ones(look.shape[:2], bool) if foreground is None else foreground[::2, ::2]
    places = np.argwhere(there)
    for _ in range(TRIES if len(places) else 0):
        seed = tuple(places[rng.integers(len(places))])
        alike = np.abs(look - look[seed]).max(axis=-1) <= rng.uniform(*TOLERANCES)
        labels, _ = ndimage.label(alike & there)
        surface = ndimage.binary_opening(ndimage.binary_fill_holes(labels == labels[seed]))
        if AREAS[0] <= surface.sum() / len(places) <= AREAS[1]:
            whole: NDArray[np.bool_] = surface.repeat(2, axis=0).repeat(2, axis=1)
            return whole[:height, :width]
    return np.zeros((height, width), dtype=bool)
