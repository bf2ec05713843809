"""Load images for training and testing, at the model's size, by the contract's resize."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusionad_client import masks
from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import ImageError
from diffusionad_client.images import Deep, RGBImage, read_pixels, resize, to_rgb
from diffusionad_training.data.digest import READ_S
from diffusionad_training.errors import DataError


def load_all(
    paths: Sequence[Path],
    size: int,
    *,
    depth: int = FULL_DEPTH,
    on_deep: Callable[[Deep], None] = lambda image: None,
) -> NDArray[np.uint8]:
    """Load images into one array (N, size, size, 3), about 0.2 MB each at 256 pixels.

    `depth` is that of images whose files do not say it (see the client's
    `pixels`); `on_deep` hears of each of them. Raises `DataError` that names
    every image that cannot be read.
    """

    def one(path: Path) -> RGBImage | ImageError:
        try:
            pixels = read_pixels(path, timeout=READ_S)
            if isinstance(pixels, Deep):
                on_deep(pixels)
            return resize(to_rgb(pixels, depth), size)
        except ImageError as exc:
            return exc

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        loaded = list(pool.map(one, paths))
    bad = [str(result) for result in loaded if isinstance(result, ImageError)]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(paths)} images cannot be used; mend or remove them:\n  "
            + "\n  ".join(bad)
        )
    return np.stack([image for image in loaded if not isinstance(image, ImageError)])


def load_mask(path: Path, size: int) -> NDArray[np.bool_]:
    """Load a mask, (size, size) bool: anything but 0 is marked. Raises `DataError`.

    Where it is shrunk, a pixel is marked if any is of those that it is made of.
    """
    return masks.resize(read_mask(path), size)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Load a mask of its own size, (H, W) bool. Raises `DataError`."""
    try:
        return masks.read(path)
    except ImageError as exc:
        raise DataError(f"the mask {exc}") from exc
