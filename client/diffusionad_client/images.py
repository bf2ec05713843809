"""From a file, bytes, a PIL image or an array to the one form that models take.

The resize here is the contract's: training, scoring and server-side decoding
all call it, so that a score never depends on who prepared the image.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from diffusionad_client.errors import ImageError

RGBImage = NDArray[np.uint8]  # (H, W, 3)
ImageSource = Union[str, "Path", bytes, Image.Image, RGBImage]

# What Pillow's decoders raise on damaged files; its own plugins catch the same kinds.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def load(source: ImageSource) -> RGBImage:
    """Read an image into RGB, (H, W, 3) uint8, of its own size.

    EXIF orientation is applied; grey, palette, CMYK and 16-bit images are
    converted; an alpha channel is dropped; of several frames the first is
    taken. Raises `ImageError`.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the PIL image")
    if isinstance(source, bytes):
        return _decode(source, f"the image of {len(source)} bytes")
    if isinstance(source, (str, Path)):
        try:
            data = Path(source).read_bytes()
        except OSError as exc:
            raise ImageError(f"{source}: cannot be read: {exc.strerror or exc}") from exc
        return _decode(data, str(source))
    raise ImageError(
        f"an image must be a path, bytes, a PIL image or an array, not {type(source).__name__}"
    )


def resize(image: RGBImage, size: int) -> RGBImage:
    """Stretch to (size, size, 3): Pillow's bilinear with its antialiasing. See contract.RESIZE."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _check_array(array: NDArray[np.generic]) -> RGBImage:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"an image array must be RGB, (H, W, 3) uint8, not {array.shape} {array.dtype}; "
            "convert it, for example with numpy.stack([grey] * 3, axis=-1).astype('uint8')"
        )
    return array.astype(np.uint8, copy=False)


def _decode(data: bytes, name: str) -> RGBImage:
    if not data:
        raise ImageError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _to_rgb(image, name)
    except UnidentifiedImageError as exc:
        raise ImageError(f"{name}: not an image that can be read (PNG, JPEG, BMP, TIFF)") from exc
    except _TOO_LARGE as exc:
        raise ImageError(f"{name}: too many pixels: {exc}") from exc
    except _DAMAGED as exc:
        raise ImageError(f"{name}: the image is damaged: {exc}") from exc


def _to_rgb(image: Image.Image, name: str) -> RGBImage:
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits a pixel, in one of several byte orders
            grey = np.asarray(upright).astype(np.float64) / 257.0
            eight_bits = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
            return np.repeat(eight_bits[..., np.newaxis], 3, axis=-1)
        if upright.mode == "F":
            raise ImageError(
                f"{name}: pixels are floating-point numbers, which have no agreed white; "
                "convert the image to 8 or 16 bits first"
            )
        return np.array(upright.convert("RGB"))
    except _DAMAGED as exc:
        raise ImageError(f"{name}: the image is damaged: {exc}") from exc
