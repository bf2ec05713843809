"""Masks: images that mark pixels. Whatever is not black is marked, however little it is.

They have a loader of their own, since that of pictures scales labels of 1 to
128 in 16 bits to 0, and averages lines away when it shrinks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import ImageError
from diffusionad_client.image_files import opened, upright
from diffusionad_client.images import read_file
from diffusionad_client.pixels import Stated, stated

_READ_S = 60.0  # for one file: no drive that is there takes so long

Mask = NDArray[np.bool_]  # (H, W), True where it marks


def read(path: Path) -> Mask:
    """Read a mask, of its own size: True where a pixel is anything but 0.

    Marks may be drawn in the alpha channel, if the colours are all alike.
    Raises `ImageError`, also where colours and alpha mark different pixels.
    """
    with opened(read_file(path, timeout=_READ_S), str(path)) as image:
        said = stated(image)
        return _marked(upright(image), said, path)


def resize(mask: Mask, size: int) -> Mask:
    """Stretch to (size, size). A pixel is marked if any is of those that it is shrunk from."""
    for axis, length in enumerate(mask.shape):
        mask = _shrink(mask, size, axis) if length > size else _enlarge(mask, size, axis)
    return mask


def _shrink(mask: Mask, size: int, axis: int) -> Mask:
    starts = np.arange(size) * mask.shape[axis] // size
    shrunk: Mask = np.logical_or.reduceat(mask, starts, axis=axis)
    return shrunk


def _enlarge(mask: Mask, size: int, axis: int) -> Mask:
    nearest = ((np.arange(size) + 0.5) * mask.shape[axis] / size).astype(int)
    return mask.take(nearest, axis=axis)


def _marked(image: Image.Image, said: Stated, path: Path) -> Mask:
    if image.mode.startswith("I") or image.mode == "F":
        values: NDArray[Any] = np.asarray(image)
        black = (1 << (said.bits or FULL_DEPTH)) - 1 if said.white_is_zero else 0
        return np.not_equal(values, black)
    if not image.has_transparency_data:
        return _any_colour(image)
    with_alpha = np.asarray(_straight(image).convert("RGBA"))
    coloured: Mask = with_alpha[..., :3].any(axis=-1)
    alpha = with_alpha[..., 3]
    if alpha.min() == alpha.max():  # it says nothing
        return coloured
    visible: Mask = alpha != 0
    if coloured.all() or not coloured.any() or np.array_equal(coloured, visible):
        return visible
    raise ImageError(
        f"{path}: the colours of this mask mark {coloured.sum()} pixels, its alpha channel "
        f"{visible.sum()}, and not the same ones; save it in grey without an alpha channel"
    )


def _any_colour(image: Image.Image) -> Mask:
    if image.mode in ("1", "L"):
        return np.not_equal(np.asarray(image), 0)
    marked: Mask = np.asarray(image.convert("RGB")).any(axis=-1)
    return marked


def _straight(image: Image.Image) -> Image.Image:
    """Undo that colours are multiplied by alpha, of which Pillow converts nothing further."""
    mode = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return image if mode is None else image.convert(mode)
