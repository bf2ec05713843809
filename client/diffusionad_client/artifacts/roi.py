"""The region of interest: the pixels of a category that are inspected. All others score 0.

A mask is boolean, (S, S) at the model's size, True inside. It is a constant of
the segmentation graph; its digest tells results of different regions apart.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from diffusionad_client import masks

Mask = masks.Mask  # (S, S)


def digest(mask: Mask) -> str:
    """SHA-256, in hex, of the mask: one byte a pixel, 1 inside and 0 outside, row by row."""
    return hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()


def to_png(mask: Mask) -> bytes:
    """Draw the mask, white inside, for people and for `read`."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def read(path: Path, size: int | None = None) -> Mask:
    """Read a mask of any size; what is not black is inside. Raises `ImageError`.

    Given a `size`, it is stretched to that square; where that shrinks it, a
    pixel is inside if any is of those that it is made of.
    """
    inside = masks.read(path)
    return inside if size is None else masks.resize(inside, size)


def read_by_nearest(path: Path, size: int) -> Mask:
    """Read a mask as earlier exports did, whose digest another way would not give.

    They took the nearest pixel where a mask was shrunk. Raises `ImageError`.
    """
    stretched = Image.fromarray(masks.read(path)).resize((size, size), Image.Resampling.NEAREST)
    return np.array(stretched)  # a copy, which may be written to
