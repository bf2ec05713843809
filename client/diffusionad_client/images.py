"""From a file, bytes, a PIL image or an array to the one form that models take.

The resize here is the contract's: training, scoring and server-side decoding
all call it, so that a score never depends on who prepared the image.
"""

from __future__ import annotations

import os
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client import file_bytes
from diffusionad_client.arrays import (
    ArrayLike,
    Color,
    as_array,
    check_color,
    from_array,
    is_array_like,
)
from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import ImageError
from diffusionad_client.file_bytes import BinaryReader, NamedBytes
from diffusionad_client.image_files import Limits, damage_named, lower_bytes, opened, upright
from diffusionad_client.pixels import (
    Deep,
    RGBImage,
    check_colour,
    from_deep,
    is_dark,
    stated,
)

__all__ = [
    "Color",
    "Deep",
    "ImageSource",
    "Limits",
    "Picture",
    "RGBImage",
    "decode",
    "fit",
    "load",
    "read_file",
    "read_pixels",
    "resize",
    "to_rgb",
]

# A path; a file's bytes, or an open one; pixels, of uint8 or of uint16.
ImageSource = Union[
    str, "os.PathLike[str]", bytes, bytearray, memoryview, NamedBytes, BinaryReader,
    Image.Image, NDArray[np.uint8], NDArray[np.uint16], ArrayLike,
]  # fmt: skip

Picture = Image.Image | RGBImage | Deep  # decoded, in its own size

_FORMS = "a path, a file's bytes, a file open in binary mode, a PIL image or an array"


def load(
    source: ImageSource,
    *,
    depth: int = FULL_DEPTH,
    color: Color = "rgb",
    limits: Limits | None = None,
    timeout: float | None = None,
    name: str | None = None,
) -> RGBImage:
    """Read an image into RGB, (H, W, 3) uint8, of its own size. See `read_pixels`.

    `depth` is how many bits a pixel of a grey image has, if it has more than 8
    and its file does not say how many. Raises what `read_pixels` does, and
    `ImageError` for a pixel that does not fit into them.
    """
    pixels = read_pixels(source, color=color, limits=limits, timeout=timeout, name=name)
    return to_rgb(pixels, depth)


def to_rgb(pixels: RGBImage | Deep, depth: int = FULL_DEPTH) -> RGBImage:
    """Scale pixels whose depth nothing else says. Raises `ImageError`, see `pixels.Deep`."""
    return pixels.to_rgb(depth) if isinstance(pixels, Deep) else pixels


def decode(data: bytes, *, limits: Limits | None = None, name: str | None = None) -> Picture:
    """Decode a file as `read_pixels` does, into Pillow's own form where that holds RGB.

    `fit` takes it as it is: to an array and back is a quarter of what decoding
    and resizing take.
    """
    said = name or f"the image of {len(data)} bytes"
    with opened(data, said, limits) as image:
        return _convert(image, said, data)


def read_pixels(
    source: ImageSource,
    *,
    color: Color = "rgb",
    limits: Limits | None = None,
    timeout: float | None = None,
    name: str | None = None,
) -> RGBImage | Deep:
    """Read an image, of its own size, into RGB or into what only needs a depth for that.

    Of files, EXIF orientation is applied; depth and polarity are those that the
    file states; grey, palette and CMYK images are converted; an alpha channel
    is dropped; of several frames the first is taken. What is like an array is
    taken as `arrays.from_array` does; `color` is the order of its channels,
    and says nothing of files and PIL images, which know their own. `limits`
    hold for files; no pixel of one that breaks them is decoded. `timeout` is
    for reading the file, in seconds. `name` is what messages call an image that
    comes as bytes. Raises `ImageError`, `ArgumentError` for another color, or
    `DeadlineExceededError` when the time is over.
    """
    check_color(color)
    if isinstance(source, Image.Image):
        with damage_named("the PIL image"):
            return _as_pixels(_convert(source, "the PIL image"))
    if isinstance(source, np.ndarray):
        return from_array(source, color)
    if file_bytes.holds_file(source):
        data = read_file(source, timeout=timeout)
        own = file_bytes.name_of(source)
        return _as_pixels(decode(data, name=own or name, limits=limits))
    if isinstance(source, memoryview) or is_array_like(source):
        return from_array(as_array(source), color)
    raise ImageError(f"an image must be {_FORMS}, not {type(source).__name__}")


def read_file(source: Any, *, timeout: float | None = None) -> bytes:
    """Give an image's file as it is, from a path, its bytes or an open file.

    Only regular files are read, and with a `timeout` in seconds nothing is
    waited for longer. Raises `ImageError` or `DeadlineExceededError`.
    """
    if file_bytes.holds_file(source):
        return file_bytes.read(source, timeout=timeout)
    raise ImageError(
        "only a path, a file's bytes or an open file can be sent encoded, not "
        f"{type(source).__name__}; leave out decode='server'"
    )


def fit(picture: Picture, size: int, depth: int) -> RGBImage:
    """Give what a model of that size takes; see `to_rgb` and `resize`. Raises `ImageError`."""
    if not isinstance(picture, Image.Image):
        return resize(to_rgb(picture, depth), size)
    return np.asarray(_resized(picture, size))


def resize(image: RGBImage, size: int) -> RGBImage:
    """Stretch to (size, size, 3): Pillow's bilinear with its antialiasing. See contract.RESIZE."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(_resized(Image.fromarray(image), size))


def _resized(image: Image.Image, size: int) -> Image.Image:
    whole = (size, size)
    return image if image.size == whole else image.resize(whole, Image.Resampling.BILINEAR)


def _as_pixels(picture: Picture) -> RGBImage | Deep:
    return np.array(picture) if isinstance(picture, Image.Image) else picture


def _convert(image: Image.Image, name: str, data: bytes | None = None) -> Picture:
    """Convert an image, from the `data` of its file if there is one."""
    if 0 in image.size:
        raise ImageError(f"{name}: it has no pixels")
    said = stated(image)
    turned = upright(image)
    if turned.mode.startswith("I"):  # 16 bits a pixel, in one of several byte orders
        return from_deep(np.asarray(turned), said, name)
    if turned.mode == "F":
        raise ImageError(
            f"{name}: pixels are floating-point numbers, which have no agreed white; "
            "convert the image to 8 or 16 bits first"
        )
    colour = turned if turned.mode == "RGB" else _without_alpha(turned)
    if not said.is_deep_colour:
        return colour
    rgb = np.array(colour)
    if data is not None and is_dark(rgb, said):
        lower = lower_bytes(data)
        if lower is not None:
            deep = rgb.astype(np.uint16) << 8 | np.asarray(lower.convert("RGB"))
            return from_deep(deep, said, name)
    check_colour(rgb, said, name)
    return rgb


def _without_alpha(image: Image.Image) -> Image.Image:
    if "transparency" in image.info:  # of a palette, of which Pillow would warn
        image = image.copy()
        del image.info["transparency"]
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return (image if straight is None else image.convert(straight)).convert("RGB")
