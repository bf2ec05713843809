"""Image files: opened so that a damaged or hostile one is an `ImageError`, and turned upright."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

from diffusionad_client.errors import ImageError
from diffusionad_client.pixels import whole_number
from diffusionad_client.regular_files import open_regular

# What Pillow's decoders raise on damaged files; its own plugins catch the same kinds.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    RuntimeError, MemoryError, struct.error, zlib.error, AttributeError, ArithmeticError,
    AssertionError, ImportError,
    Warning,  # where whoever calls has made errors of warnings
)  # fmt: skip
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# Pillow knows forty more. None is a camera's, and one of them starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")

_FOREIGN = "B" if sys.byteorder == "little" else "L"
_OTHER_WAY_ROUND = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("L", "B"), ("B", "L"), ("N", _FOREIGN))
}

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
_ON_ITS_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a file from a stranger may be, so that a small one cannot fill the memory."""

    max_bytes: int = 64 * 2**20  # of the file
    max_pixels: int = 100_000_000  # height times width; a pixel takes some 15 bytes on the way


@contextmanager
def opened(data: bytes, name: str, limits: Limits | None = None) -> Iterator[Image.Image]:
    """Open a file's bytes and read its header; `name` is the file's, for messages.

    What goes wrong with the image in the `with` block is an `ImageError` too.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty")
    if limits and len(data) > limits.max_bytes:
        raise ImageError(f"{name}: more than the {limits.max_bytes} bytes that a file may have")
    with damage_named(name):
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError as exc:
            if data.startswith(_TIFF):
                raise ImageError(
                    f"{name}: a TIFF of a kind that cannot be read, or damaged; save it with 8 or "
                    "16 bits a channel"
                ) from exc
            formats = ", ".join(_FORMATS)
            raise ImageError(f"{name}: not an image that can be read ({formats})") from exc
        with image:
            if limits and image.width * image.height > limits.max_pixels:
                raise ImageError(
                    f"{name}: {image.width} x {image.height} pixels are more than the "
                    f"{limits.max_pixels} that an image may have"
                )
            yield image


def lower_bytes(data: bytes) -> Image.Image | None:
    """Give the lower 8 of the 16 bits of each colour; None where Pillow cannot be got to do so.

    Told that the bytes stand the other way round, it takes the lower for the upper ones.
    """
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    swapped = []
    arguments: Any
    for codec, extents, offset, arguments in image.tile:
        mode, *others = (arguments,) if isinstance(arguments, str) else arguments
        other = _OTHER_WAY_ROUND.get(mode)
        if other is None:
            return None
        new = other if isinstance(arguments, str) else (other, *others)
        swapped.append(type(image.tile[0])(codec, extents, offset, new))
    image.tile = swapped
    return upright(image)


def size_of(data: bytes) -> tuple[int, int] | None:
    """Read the height and width of an image, turned upright; None if its header cannot be read."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            lies = _orientation(image) in _ON_ITS_SIDE
            return (image.width, image.height) if lies else (image.height, image.width)
    except (*_DAMAGED, *_TOO_LARGE):
        return None


def dimensions(path: Path) -> tuple[int, int]:
    """Read the height and width of an image, turned upright, from its header.

    Raises `ImageError`.
    """
    with damage_named(str(path)), open_regular(path) as file:
        try:
            image = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError as exc:
            raise ImageError(f"{path}: not an image that can be read") from exc
        lies = _orientation(image) in _ON_ITS_SIDE
        return (image.width, image.height) if lies else (image.height, image.width)


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Turn what Pillow raises for a damaged image into an `ImageError` that names it."""
    try:
        yield
    except _TOO_LARGE as exc:
        raise ImageError(f"{name}: too many pixels: {exc}") from exc
    except MemoryError as exc:
        raise ImageError(f"{name}: there is not enough memory to decode it") from exc
    except _DAMAGED as exc:
        raise ImageError(f"{name}: the image is damaged: {exc}") from exc


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says, whatever else is wrong with its EXIF data.

    Pillow's own function writes the data anew, which fails for tags of wrong types.
    """
    if image.format == "TIFF":
        _drop_unreadable(image.getexif())
    image.load()  # of a PNG, the orientation may stand behind the pixels
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int | None:
    try:
        return whole_number(image.getexif().get(ExifTags.Base.Orientation))
    except _DAMAGED:
        return None


def _drop_unreadable(exif: Image.Exif) -> None:
    """Leave out what Pillow would read with a TIFF's pixels, and refuse them for."""
    for key in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
        try:
            exif.get_ifd(key)
        except _DAMAGED:
            if key in exif:
                del exif[key]
