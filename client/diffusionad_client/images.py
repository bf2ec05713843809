"""From a file, bytes, a PIL image or an array to the one form that models take.

The resize here is the contract's: training, scoring and server-side decoding
all call it, so that a score never depends on who prepared the image.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from diffusionad_client import regular_files
from diffusionad_client.errors import DeadlineExceededError, ImageError

RGBImage = NDArray[np.uint8]  # (H, W, 3)
ImageSource = Union[str, "Path", bytes, Image.Image, RGBImage]

# What Pillow's decoders raise on damaged files; its own plugins catch the same kinds.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# Pillow knows forty more. None is a camera's, and one of them starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")

_TO_8_BITS = np.rint(np.arange(2**16) / 257).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a file from a stranger may be, so that a small one cannot fill the memory."""

    max_bytes: int = 64 * 2**20  # of the file
    max_pixels: int = 100_000_000  # height times width; a pixel takes some 15 bytes on the way


def load(
    source: ImageSource, *, limits: Limits | None = None, timeout: float | None = None
) -> RGBImage:
    """Read an image into RGB, (H, W, 3) uint8, of its own size.

    EXIF orientation is applied; grey, palette, CMYK and 16-bit images are
    converted; an alpha channel is dropped; of several frames the first is
    taken. `limits` hold for files; no pixel of one that breaks them is
    decoded. `timeout` is for reading the file, in seconds. Raises `ImageError`,
    or `DeadlineExceededError` when that is over.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the PIL image")
    if isinstance(source, bytes):
        return _decode(source, f"the image of {len(source)} bytes", limits)
    if isinstance(source, (str, Path)):
        return _decode(read_file(source, timeout=timeout), str(source), limits)
    raise ImageError(
        f"an image must be a path, bytes, a PIL image or an array, not {type(source).__name__}"
    )


def read_file(source: ImageSource, *, timeout: float | None = None) -> bytes:
    """Give an image's file as it is, from a path or its bytes.

    Only regular files are read, and with a `timeout` in seconds nothing is
    waited for longer. Raises `ImageError` or `DeadlineExceededError`.
    """
    if isinstance(source, bytes):
        return source
    if not isinstance(source, (str, Path)):
        raise ImageError(
            f"only a path or a file's bytes can be sent encoded, not {type(source).__name__}; "
            "leave out encoded=True"
        )
    try:
        return regular_files.read(source, timeout=timeout)
    except TimeoutError as exc:
        raise DeadlineExceededError(
            f"{source}: {exc.strerror}; is its drive there? Allow more with timeout= or --timeout"
        ) from exc
    except OSError as exc:
        raise ImageError(f"{source}: cannot be read: {exc.strerror or exc}") from exc


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


def _decode(data: bytes, name: str, limits: Limits | None) -> RGBImage:
    if not data:
        raise ImageError(f"{name}: the file is empty")
    if limits and len(data) > limits.max_bytes:
        raise ImageError(f"{name}: more than the {limits.max_bytes} bytes that a file may have")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:  # reads the header only
            if limits and image.width * image.height > limits.max_pixels:
                raise ImageError(
                    f"{name}: {image.width} x {image.height} pixels are more than the "
                    f"{limits.max_pixels} that an image may have"
                )
            return _to_rgb(image, name)
    except UnidentifiedImageError as exc:
        raise ImageError(f"{name}: not an image that can be read ({', '.join(_FORMATS)})") from exc
    except _TOO_LARGE as exc:
        raise ImageError(f"{name}: too many pixels: {exc}") from exc
    except _DAMAGED as exc:
        raise ImageError(f"{name}: the image is damaged: {exc}") from exc


def _to_rgb(image: Image.Image, name: str) -> RGBImage:
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits a pixel, in one of several byte orders
            eight_bits = _TO_8_BITS[np.clip(np.asarray(upright), 0, 2**16 - 1)]
            return np.repeat(eight_bits[..., np.newaxis], 3, axis=-1)
        if upright.mode == "F":
            raise ImageError(
                f"{name}: pixels are floating-point numbers, which have no agreed white; "
                "convert the image to 8 or 16 bits first"
            )
        return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))
    except _DAMAGED as exc:
        raise ImageError(f"{name}: the image is damaged: {exc}") from exc
