"""The part number, dot-peened into the plate: each letter is five by seven small dimples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffusionad_tools.demo_data.geometry import Plane

TEXT = "DA-4711"
PITCH = 0.0185  # from dot to dot, in units of half a picture
CENTRE_Y = 0.665

_GLYPHS = {
    "D": "####. #...# #...# #...# #...# #...# ####.",
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "-": "..... ..... ..... .###. ..... ..... .....",
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "4": "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "7": "##### ....# ...#. ..#.. ..#.. ..#.. ..#..",
}


def dot_matrix(text: str = TEXT) -> NDArray[np.bool_]:
    """The text as dots, (9, 6 * letters + 1), with an empty border."""
    letters = [
        np.array([[dot == "#" for dot in row] for row in _GLYPHS[letter].split()])
        for letter in text
    ]
    return np.pad(np.hstack([np.pad(letter, ((0, 0), (0, 1))) for letter in letters]), 1)[:, :-1]


def dimples(x: Plane, y: Plane) -> tuple[Plane, Plane, Plane]:
    """The nearest dot's centre to each point, as an offset in pitches, and 1 where there is a dot.

    Returns (offset_x, offset_y, dot).
    """
    dots = dot_matrix()
    rows, columns = dots.shape
    u = x / PITCH + (columns / 2)
    v = (y - CENTRE_Y) / PITCH + (rows / 2)
    column, row = np.floor(u), np.floor(v)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    index = (
        np.clip(row, 0, rows - 1).astype(np.intp),
        np.clip(column, 0, columns - 1).astype(np.intp),
    )
    dot = (dots[index] & inside).astype(np.float32)
    return u - column - 0.5, v - row - 0.5, dot
