"""From a file, bytes, a PIL image or an array to the one form that models take.

The resize here is the contract's: training, scoring and server-side decoding
all call it, so that a score never depends on who prepared the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client import regular_files
from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import DeadlineExceededError, ImageError
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

_MOST_BYTES = 2**31 - 1  # of an array: more, Pillow does not resize


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
        with damage_named("the PIL image"):
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
            + _advice(array)
        )
    if array.size > _MOST_BYTES:
        raise ImageError(
            f"an image array of {array.shape} is more than the {_MOST_BYTES} bytes that can be "
            "resized at once; shrink it first"
        )
    return array.astype(np.uint8, copy=False)


def _advice(array: NDArray[np.generic]) -> str:
    """Say how such an array becomes what models take, without losing what is in it."""
    if array.dtype.kind == "f":
        return (
            "scale it first: numpy.rint(255 * image).astype('uint8') if its values lie in [0, 1]; "
            "without that it would be black"
        )
    if array.dtype != np.uint8:
        return (
            "scale its values to 0 to 255, then convert it, for example with "
            "(image // 257).astype('uint8') if they are of 16 bits"
        )
    return "make a grey image RGB with numpy.stack([grey] * 3, axis=-1)"


def _decode(data: bytes, name: str, limits: Limits | None) -> RGBImage | Deep:
    with opened(data, name, limits) as image:
        return _convert(image, name, data)


def _convert(image: Image.Image, name: str, data: bytes | None = None) -> RGBImage | Deep:
    """Convert an image, from the `data` of its file if there is one."""
    said = stated(image)
    turned = upright(image)
    if turned.mode.startswith("I"):  # 16 bits a pixel, in one of several byte orders
        return from_deep(np.asarray(turned), said, name)
    if turned.mode == "F":
        raise ImageError(
            f"{name}: pixels are floating-point numbers, which have no agreed white; "
            "convert the image to 8 or 16 bits first"
        )
    rgb = np.array(turned if turned.mode == "RGB" else _without_alpha(turned))
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
