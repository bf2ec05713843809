"""From an array, of numpy or of another library, to pixels: what may come, and what never means it.

An array says nothing of itself but its shape and type. So what could be meant
in two ways is refused with what to do: numbers that are no whole ones, whose
white nobody knows, and axes in another order.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.errors import ArgumentError, ImageError, shown
from diffusionad_client.pixels import Deep, RGBImage, Stated, from_deep, is_dark

Color = Literal["rgb", "bgr"]
_COLORS = ("rgb", "bgr")

_MOST_BYTES = 2**31 - 1  # of an image in RGB: more, Pillow does not resize
_NAME = "the array"


@runtime_checkable
class ArrayLike(Protocol):
    """What numpy can look into, by its own agreement, such as arrays of other libraries."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


def check_color(value: Color) -> Color:
    """Return the order of an array's channels. Raises `ArgumentError`."""
    if not isinstance(value, str) or value not in _COLORS:
        raise ArgumentError(
            f"color is 'rgb', or 'bgr' for arrays as OpenCV reads them, not {shown(value)}"
        )
    return value


def is_array_like(source: object) -> bool:
    """Tell whether numpy can look into an object, without importing what made it."""
    return any(_has(source, name) for name in ("__array_interface__", "__array__"))


def as_array(source: Any) -> NDArray[Any]:
    """Look into an object that is like an array, without a copy where its library allows that.

    Raises `ImageError`.
    """
    try:
        return np.asarray(source)
    except Exception as exc:  # it runs the code of whoever made the object
        raise ImageError(
            f"the {type(source).__name__} cannot be taken as an array: {_reason(exc)}; give it as "
            "numpy's, (H, W, 3) uint8"
        ) from exc


def from_array(source: NDArray[Any], color: Color = "rgb") -> RGBImage | Deep:
    """Take an array as a picture, as a file with such pixels would be. Raises `ImageError`.

    (H, W, 3) or (H, W, 4) is colour, in the order that `color` says, whose
    fourth channel, the opacity, is dropped; (H, W) or (H, W, 1) is grey. Of
    uint16, grey and dark colours have the depth of the release, see
    `pixels.Deep`.
    """
    array = _plain(source)
    channels = array.shape[2] if array.ndim == 3 else 1
    depth = array.dtype.kind + str(array.dtype.itemsize)
    form_fits = depth in ("u1", "u2") and array.ndim in (2, 3) and channels in (1, 3, 4)
    if not form_fits or 0 in array.shape:
        raise ImageError(
            f"an image array must be RGB, (H, W, 3) uint8, not {_form(array)}; {_advice(array)}"
        )
    if 3 * array.shape[0] * array.shape[1] > _MOST_BYTES:
        raise ImageError(
            f"an image array of {array.shape} is in RGB more than the {_MOST_BYTES} bytes that "
            "can be resized at once; shrink it first"
        )
    if channels == 1:
        grey = array.reshape(array.shape[:2])
        if depth == "u2":
            return from_deep(grey, Stated(), _NAME)
        return np.repeat(grey[..., np.newaxis], 3, axis=-1)
    colour = array[..., 2::-1] if color == "bgr" else array[..., :3]
    if depth == "u1":
        return colour
    upper = (colour >> 8).astype(np.uint8)
    said = Stated(is_deep_colour=True)
    return from_deep(colour, said, _NAME) if is_dark(upper, said) else upper


def _plain(source: NDArray[Any]) -> NDArray[Any]:
    """Give numpy's own kind of array, of which some have kinds that hide pixels."""
    if isinstance(source, np.ma.MaskedArray) and bool(np.any(source.mask)):
        raise ImageError(
            "pixels of the array are masked, and a picture has no holes; fill them first: "
            "image.filled(0)"
        )
    return np.asarray(source)


def _form(array: NDArray[Any]) -> str:
    return f"{array.shape} {shown(array.dtype) if array.dtype.names else array.dtype}"


def _advice(array: NDArray[Any]) -> str:
    """Say how such an array becomes what models take, without losing what is in it."""
    kind = array.dtype.kind
    if 0 in array.shape:
        return "it has no pixels"
    if kind == "f":
        return (
            "scale it first: numpy.rint(255 * image).astype('uint8') if its values lie in [0, 1]; "
            "without that it would be black"
        )
    if kind == "b":
        return "make it a picture of 0 and 255 first, with image.astype('uint8') * 255"
    if kind not in "iu":
        return "give the numbers of its pixels"
    if array.dtype.itemsize > 2 or kind == "i":
        return (
            "scale its values to 0 to 255, then convert it with image.astype('uint8'); or with "
            "image.astype('uint16') if they are whole numbers of 9 to 16 bits"
        )
    if array.ndim <= 2:
        return (
            "has it no second axis? The bytes of a file, as cv2.imencode gives them, are given "
            "as image.tobytes()"
        )
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4:
        return "put its channels last with numpy.moveaxis(image, 0, -1)"
    if array.ndim == 4:
        return "give the images of a batch one by one"
    return "give grey as (H, W), colour as (H, W, 3)"


def _has(source: object, name: str) -> bool:
    try:
        return hasattr(source, name)
    except Exception:  # a property of the object's that is broken
        return False


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
