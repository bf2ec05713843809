"""Windows of images: what early training steps see, and what an anomaly is made in.

Four small steps cost as much as a large one, and early in a training the number of steps is what
is short, not the number of pixels in each. A window around an anomaly, or around a small
product, also leaves out the empty ground.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Window = tuple[slice, slice]  # rows, columns

MARGIN = 0.125  # of the side: what a window is around comes at least this far into it


def choose_window(
    shape: tuple[int, int],
    sides: tuple[int, int],
    rng: np.random.Generator,
    place: NDArray[np.bool_] | None = None,
) -> Window:
    """Choose a window of the given sides in an image of `shape`, both (H, W), at random.

    A random pixel of `place` (H, W), which may not be empty, or of the whole
    image comes to lie well inside, as far as the image's edges allow. So windows
    lie at the edges as often as anywhere, and what is there is seen.
    """
    if place is None:
        pixel = rng.integers(0, shape)
    else:
        pixels = np.argwhere(place)
        pixel = pixels[rng.integers(len(pixels))]
    size = np.array(sides)
    margin = np.rint(MARGIN * size).astype(int)
    corner = np.clip(pixel - rng.integers(margin, size - margin), 0, np.array(shape) - size)
    top, left = (int(value) for value in corner)
    return slice(top, top + sides[0]), slice(left, left + sides[1])
