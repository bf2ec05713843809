"""Windows cut out of training images: four small steps for the price of a large one.

Early in a training the number of steps is what is short, not the number of
pixels in each. On a small product a window around it also leaves out the
empty ground.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Window = tuple[slice, slice]  # rows, columns

MARGIN = 0.25  # of the window's side: the product comes at least this far into it


def choose_window(
    size: int, side: int, rng: np.random.Generator, foreground: NDArray[np.bool_] | None = None
) -> Window:
    """Choose a window of `side` pixels in an image of `size`, at random.

    With a `foreground` (size, size), which may not be empty, a random pixel of
    it comes to lie well inside, as far as the image's edges allow.
    """
    if foreground is None:
        corner = rng.integers(0, size - side + 1, size=2)
    else:
        places = np.argwhere(foreground)
        margin = round(MARGIN * side)
        place = places[rng.integers(len(places))]
        corner = place - rng.integers(margin, side - margin, size=2)
        corner = np.clip(corner, 0, size - side)
    top, left = (int(value) for value in corner)
    return slice(top, top + side), slice(left, left + side)
