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
from PIL import ExifTags, Image, UnidentifiedImageError

from diffusionad_client import regular_files
from diffusionad_client.errors import DeadlineExceededError, ImageError
from diffusionad_client.pixels import (
    FULL_DEPTH,
    Deep,
    RGBImage,
    check_colour,
    from_grey,
    stated,
    whole_number,
)

__all__ = [
    "Deep",
    "ImageSource",
    "Limits",
    "RGBImage",
    "load",
    "read_file",
    "read_pixels",
    "resize",
    "to_rgb",
]

ImageSource = Union[str, "Path", bytes, Image.Image, RGBImage]

# What Pillow's decoders raise on damaged files; its own plugins catch the same kinds.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# Pillow knows forty more. None is a camera's, and one of them starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_TURNS: dict[int | None, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a file from a stranger may be, so that a small one cannot fill the memory."""

    max_bytes: int = 64 * 2**20  # of the file
    max_pixels: int = 100_000_000  # height times width; a pixel takes some 15 bytes on the way


def load(
    source: ImageSource,
    *,
    depth: int = FULL_DEPTH,
    limits: Limits | None = None,
    timeout: float | None = None,
    name: str | None = None,
) -> RGBImage:
    """Read an image into RGB, (H, W, 3) uint8, of its own size. See `read_pixels`.

    `depth` is how many bits a pixel of a grey image has, if it has more than 8
    and its file does not say how many. Raises what `read_pixels` does, and
    `ImageError` for a pixel that does not fit into them.
    """
    return to_rgb(read_pixels(source, limits=limits, timeout=timeout, name=name), depth)


def to_rgb(pixels: RGBImage | Deep, depth: int = FULL_DEPTH) -> RGBImage:
    """Scale pixels whose depth nothing else says. Raises `ImageError`, see `pixels.Deep`."""
    return pixels.to_rgb(depth) if isinstance(pixels, Deep) else pixels


def read_pixels(
    source: ImageSource,
    *,
    limits: Limits | None = None,
    timeout: float | None = None,
    name: str | None = None,
) -> RGBImage | Deep:
    """Read an image, of its own size, into RGB or into what only needs a depth for that.

    EXIF orientation is applied; depth and polarity are those that the file
    states; grey, palette and CMYK images are converted; an alpha channel is
    dropped; of several frames the first is taken. `limits` hold for files; no
    pixel of one that breaks them is decoded. `timeout` is for reading the file,
    in seconds. `name` is what messages call an image that comes as bytes. Raises
    `ImageError`, or `DeadlineExceededError` when the time is over.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source)
    if isinstance(source, Image.Image):
        return _convert(source, "the PIL image")
    if isinstance(source, bytes):
        return _decode(source, name or f"the image of {len(source)} bytes", limits)
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


def _decode(data: bytes, name: str, limits: Limits | None) -> RGBImage | Deep:
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
            return _convert(image, name)
    except UnidentifiedImageError as exc:
        if data.startswith(_TIFF):
            raise ImageError(
                f"{name}: a TIFF of a kind that cannot be read, or damaged; save it with 8 or 16 "
                "bits a channel"
            ) from exc
        raise ImageError(f"{name}: not an image that can be read ({', '.join(_FORMATS)})") from exc
    except _TOO_LARGE as exc:
        raise ImageError(f"{name}: too many pixels: {exc}") from exc
    except _DAMAGED as exc:
        raise ImageError(f"{name}: the image is damaged: {exc}") from exc


def _convert(image: Image.Image, name: str) -> RGBImage | Deep:
    try:
        said = stated(image)
        upright = _upright(image)
        if upright.mode.startswith("I"):  # 16 bits a pixel, in one of several byte orders
            return from_grey(np.asarray(upright), said, name)
        if upright.mode == "F":
            raise ImageError(
                f"{name}: pixels are floating-point numbers, which have no agreed white; "
                "convert the image to 8 or 16 bits first"
            )
        rgb = np.array(upright if upright.mode == "RGB" else _without_alpha(upright))
        check_colour(rgb, said, name)
        return rgb
    except _DAMAGED as exc:
        raise ImageError(f"{name}: the image is damaged: {exc}") from exc


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says, whatever else is wrong with its EXIF data.

    Pillow's own function writes the data anew, which fails for tags of wrong types.
    """
    if image.format == "TIFF":
        _drop_unreadable(image.getexif())
    image.load()  # of a PNG, the orientation may stand behind the pixels
    try:
        orientation = whole_number(image.getexif().get(ExifTags.Base.Orientation))
    except _DAMAGED:
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _drop_unreadable(exif: Image.Exif) -> None:
    """Leave out what Pillow would read with a TIFF's pixels, and refuse them for."""
    for key in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
        try:
            exif.get_ifd(key)
        except _DAMAGED:
            if key in exif:
                del exif[key]


def _without_alpha(image: Image.Image) -> Image.Image:
    if "transparency" in image.info:  # of a palette, of which Pillow would warn
        image = image.copy()
        del image.info["transparency"]
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return (image if straight is None else image.convert(straight)).convert("RGB")
