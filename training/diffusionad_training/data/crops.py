"""Windows cut out of training images: four small steps for the price of a large one.

Early in a training the number of steps is what is short, not the number of
pixels in each. A window around an anomaly, or around a small product, also
leaves out the empty ground.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Window = tuple[slice, slice]  # rows, columns

MARGIN = 0.125  # of the side: what a window is around comes at least this far into it


def choose_window(
    size: int, side: int, rng: np.random.Generator, place: NDArray[np.bool_] | None = None
) -> Window:
    """Choose a window of `side` pixels in an image of `size`, at random.

    A random pixel of `place` (size, size), which may not be empty, or of the whole
    image comes to lie well inside, as far as the image's edges allow. So windows
    lie at the edges as often as anywhere, and what is there is seen.
    """
    if place is None:
        pixel = rng.integers(0, size, size=2)
    else:
        pixels = np.argwhere(place)
        pixel = pixels[rng.integers(len(pixels))]
    margin = round(MARGIN * side)
    corner = pixel - rng.integers(margin, side - margin, size=2)
    top, left = (int(value) for value in np.clip(corner, 0, size - side))
    return slice(top, top + side), slice(left, left + side)
