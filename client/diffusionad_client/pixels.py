"""From what a file says of its pixels to 8 bits a channel, black at 0: depth and polarity.

A camera of 12 bits writes 0 to 4095, into files that hold 16 bits a pixel.
What the file states of that is honoured: TIFF's BitsPerSample, MaxSampleValue
and WhiteIsZero, PNG's sBIT. Where it states nothing, the `depth` that the
release was trained with decides, see `Deep`. Pixels of 8 bits or fewer are
taken as Pillow reads them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import ImageError

RGBImage = NDArray[np.uint8]  # (H, W, 3)

DEPTHS = range(8, FULL_DEPTH + 1)
_MOST_BITS_OF_A_CAMERA = 14

# TIFF tags, and a value of the first.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_BITS_PER_SAMPLE = 258
_MAXIMA = (281, 341)  # MaxSampleValue and SMaxSampleValue

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")


@dataclass(frozen=True, eq=False)
class Deep:
    """An image of more than 8 bits a channel, from a file that does not say of how many."""

    values: NDArray[np.uint16]  # (H, W), or of a dark colour image (H, W, 3)
    white_is_zero: bool
    name: str  # for messages

    @property
    def largest(self) -> int:
        """The largest value of a pixel."""
        return int(self.values.max(initial=0))

    def to_rgb(self, depth: int = FULL_DEPTH) -> RGBImage:
        """Scale `depth` bits to 8. Raises `ImageError` if a pixel does not fit into them."""
        if (largest := self.largest) >= 1 << depth:
            raise ImageError(
                f"{self.name}: a pixel is {largest}, and images of this product have {depth} "
                f"bits, up to {(1 << depth) - 1}; was another camera used, or other settings?"
            )
        return _to_rgb(self.values, depth, self.white_is_zero)


@dataclass(frozen=True)
class Stated:
    """What a file says of its pixels beyond what Pillow acts on."""

    bits: int | None = None  # that carry the picture; None if nothing is said, or nothing to use
    is_deep_colour: bool = False  # 16 bits in several channels, of which Pillow gives the upper 8
    is_sbit: bool = False  # PNG's: by its specification the values are scaled up to 16 bits
    white_is_zero: bool = False


def stated(image: Image.Image) -> Stated:
    """Read what the file of an image states. Before it is loaded: then much is forgotten."""
    if image.format == "TIFF":
        return _stated_by_tiff(image)
    if image.format == "PNG":
        return _stated_by_png(image)
    return Stated()


def from_deep(pixels: NDArray[Any], said: Stated, name: str) -> RGBImage | Deep:
    """Take pixels (H, W) or (H, W, 3) of more than 8 bits each; those beyond 16 bits are cut."""
    values = np.clip(pixels, 0, 2**16 - 1).astype(np.uint16)
    # A pixel beyond the depth that is stated says that it was no depth.
    if said.bits is not None and int(values.max(initial=0)) < 1 << said.bits:
        if not (said.is_sbit and _is_scaled_up(values, said.bits)):
            return _to_rgb(values, said.bits, said.white_is_zero)
        return _to_rgb(values, FULL_DEPTH, said.white_is_zero)
    if said.is_sbit:
        return _to_rgb(values, FULL_DEPTH, said.white_is_zero)
    return Deep(values, said.white_is_zero, name)


def is_dark(colour: RGBImage, said: Stated) -> bool:
    """Tell whether the lower 8 of 16 bits a channel, which Pillow leaves out, may be the picture.

    No camera has 15 bits: a picture that has more than 14 is not in question.
    """
    return said.is_deep_colour and int(colour.max(initial=0)) < 1 << (_MOST_BITS_OF_A_CAMERA - 8)


def check_colour(colour: RGBImage, said: Stated, name: str) -> None:
    """Refuse colours that would come out nearly black. Raises `ImageError`.

    Pillow gives the upper 8 of 16 bits, and a camera's 12 may lie in the lower ones, which are
    not there of a PIL image and of grey with alpha.
    """
    if said.is_deep_colour and said.bits is not None and 8 < said.bits < FULL_DEPTH:
        largest = int(colour.max(initial=0))
        if 0 < largest < 1 << (said.bits - 8):
            raise ImageError(
                f"{name}: a colour image of 16 bits a channel with {said.bits} bits in the lower "
                "ones, which cannot be read; scale it to 16 bits, or save it with 8"
            )


def whole_number(value: Any) -> int | None:
    """Read a tag that should be a whole number, and may be typed as anything. None: it is none."""
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    if isinstance(value, bytes):
        value = value.strip(b"\0 ")
        value = value.decode("ascii") if value.isdigit() else (value[0] if len(value) == 1 else "")
    if isinstance(value, str):
        value = value.strip("\0 ")
        return int(value) if value.isdecimal() else None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):  # the last: a ratio
        return None


def _stated_by_tiff(image: Image.Image) -> Stated:
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    channels = tags.get(_BITS_PER_SAMPLE, (1,))
    deepest = whole_number(channels) or 1
    bits = deepest if 8 < deepest < FULL_DEPTH else None
    for tag in _MAXIMA:
        largest = whole_number(tags.get(tag)) or 0
        # Any other number tells of this image, not of the camera.
        if bits is None and largest & (largest + 1) == 0 and 8 < largest.bit_length() < 16:
            bits = largest.bit_length()
    return Stated(
        bits=bits,
        is_deep_colour=deepest > 8 and isinstance(channels, tuple) and len(channels) > 1,
        # Of 8 bits and fewer Pillow turns the polarity itself.
        white_is_zero=whole_number(tags.get(_PHOTOMETRIC)) == _WHITE_IS_ZERO and deepest > 8,
    )


def _stated_by_png(image: Image.Image) -> Stated:
    bits, deepest, colour = None, 8, 0
    file: Any = getattr(image, "fp", None)
    if file is None:
        return Stated()
    before = file.tell()
    try:
        file.seek(0)
        if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
            return Stated()
        while True:
            length, kind = _CHUNK.unpack(file.read(_CHUNK.size))
            if kind == b"IHDR":
                header = file.read(length)
                deepest, colour = header[8], header[9]
            elif kind == b"sBIT":
                bits = max(file.read(length), default=0)
            elif kind in (b"PLTE", b"IDAT", b"IEND"):
                break
            else:
                file.seek(length, 1)
            file.seek(4, 1)  # the checksum
    except (struct.error, IndexError):
        pass  # broken off; decoding will say so
    finally:
        file.seek(before)
    usable = bits is not None and deepest == FULL_DEPTH and 8 <= bits < FULL_DEPTH
    return Stated(
        bits=bits if usable else None,
        is_deep_colour=deepest == FULL_DEPTH and colour != 0,
        is_sbit=usable,
    )


def _is_scaled_up(values: NDArray[np.uint16], bits: int) -> bool:
    """Tell whether values of `bits` bits stand in the upper ones of 16, as in a dark image.

    The lower bits are then 0, or repeat the upper ones.
    """
    below = FULL_DEPTH - bits
    low = values & ((1 << below) - 1)
    return not low.any() or np.array_equal(low, (values >> bits) & ((1 << below) - 1))


def _to_rgb(values: NDArray[np.uint16], depth: int, white_is_zero: bool) -> RGBImage:
    if values.ndim == 3 and depth == FULL_DEPTH:
        return (values >> 8).astype(np.uint8)  # as Pillow has it
    table = _table(depth)
    if values.ndim == 3:
        return table[values]
    grey: NDArray[np.uint8] = (table[::-1] if white_is_zero else table)[values]
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


@lru_cache
def _table(depth: int) -> NDArray[np.uint8]:
    """The 8 bits of every value of `depth` bits."""
    white = (1 << depth) - 1
    table: NDArray[np.uint8] = np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)
    return table
