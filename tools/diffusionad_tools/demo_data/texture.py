"""Smooth random fields: a table of random numbers, looked up between its entries."""

from __future__ import annotations

import numpy as np

from diffusionad_tools.demo_data.geometry import Plane


def smooth_noise(rng: np.random.Generator, rows: int, columns: int, u: Plane, v: Plane) -> Plane:
    """Noise of unit variance at its nodes, `columns` cells along u and `rows` along v.

    u and v count in [0, 1); beyond that the field repeats, so it closes around a circle.
    """
    table = rng.standard_normal((rows, columns), dtype=np.float32).ravel()
    x, y = u * columns, v * rows
    x_floor, y_floor = np.floor(x), np.floor(y)
    wx, wy = _ease(x - x_floor), _ease(y - y_floor)
    left, top = x_floor.astype(np.intp) % columns, y_floor.astype(np.intp) % rows
    right, bottom = (left + 1) % columns, (top + 1) % rows
    top, bottom = top * columns, bottom * columns
    upper = table[top + left] * (1 - wx) + table[top + right] * wx
    lower = table[bottom + left] * (1 - wx) + table[bottom + right] * wx
    noise: Plane = upper * (1 - wy) + lower * wy
    return noise


def _ease(t: Plane) -> Plane:
    return t * t * (3 - 2 * t)
