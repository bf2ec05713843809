"""Arrays as pictures: taken as files of that kind are, or refused with what to do."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client import ArgumentError, ImageError, images

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
DEEP = np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16)


def from_file(picture: NDArray[Any]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return images.load(buffer.getvalue())


class Foreign:
    """An array of a library that is not imported here."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.__array_interface__ = array.__array_interface__
        self.kept = array


class Convertible:
    """What numpy can ask for an array, as tensors are."""

    def __init__(self, array: NDArray[Any] | Exception) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


@pytest.mark.parametrize(
    "grey",
    [RGB[..., 0], DEEP, DEEP // 20, DEEP.astype(">u2"), DEEP[::-1, ::-1]],
    ids=["8 bits", "16 bits", "dark 16 bits", "big-endian", "turned round"],
)
def test_grey_is_taken_as_its_file_is(grey: NDArray[Any]) -> None:
    expected = from_file(grey.astype(grey.dtype.newbyteorder("="), copy=False).copy())
    np.testing.assert_array_equal(images.load(grey), expected)
    np.testing.assert_array_equal(images.load(grey[..., np.newaxis]), expected)


def test_opacity_is_dropped_as_that_of_files_is() -> None:
    rgba = np.dstack([RGB, RGB[..., :1]])
    np.testing.assert_array_equal(images.load(rgba), from_file(rgba))
    np.testing.assert_array_equal(images.load(rgba), RGB)


@pytest.mark.parametrize("opacity", [False, True])
@pytest.mark.parametrize("factor", [1, 257, 16])
def test_bgr_is_turned_round_whatever_the_depth(opacity: bool, factor: int) -> None:
    rgb = RGB if factor == 1 else RGB.astype(np.uint16) * factor
    bgr = np.dstack([rgb[..., ::-1], rgb[..., :1]]) if opacity else rgb[..., ::-1]
    expected = images.load(rgb, depth=12)
    np.testing.assert_array_equal(images.load(bgr, color="bgr", depth=12), expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_12_bits_have_the_depth_of_the_release(channels: int) -> None:
    colours = np.full((4, 4, channels), 2048, np.uint16)
    assert (images.load(colours, depth=12) == 128).all()
    assert (images.load(colours) == 8).all()
    assert (images.load(colours * 16, depth=12) == 128).all()  # these are of 16 bits


def test_a_pixel_that_does_not_fit_into_the_depth_is_refused() -> None:
    with pytest.raises(ImageError, match="the array: a pixel is 4096, .* have 12 bits"):
        images.load(np.full((4, 4), 4096, np.uint16), depth=12)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_what_knows_its_own_colours_is_not_turned_round(color: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    for source in (buffer.getvalue(), Image.fromarray(RGB)):
        np.testing.assert_array_equal(images.load(source, color=color), RGB)


@pytest.mark.parametrize("color", ["BGR", "", None, 3, ["rgb"], RGB])
def test_another_order_of_channels_is_refused(color: Any) -> None:
    with pytest.raises(ArgumentError, match="color is 'rgb', or 'bgr' for arrays"):
        images.load(RGB, color=color)


@pytest.mark.parametrize(
    "source",
    [
        Foreign(RGB), Foreign(RGB[::-1, ::2]), Convertible(RGB), memoryview(RGB),
        RGB.view(type("Frame", (np.ndarray,), {})), np.ma.MaskedArray(RGB),
    ],
)  # fmt: skip
def test_arrays_of_other_libraries_are_looked_into(source: Any) -> None:
    expected = source.kept if isinstance(source, Foreign) else RGB
    np.testing.assert_array_equal(images.load(source), expected)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones((4, 4, 3), np.float32), r"rint\(255 \* image"),
        (np.full((4, 4, 3), np.nan), r"rint\(255 \* image"),
        (np.ones((4, 4), np.bool_), "astype.'uint8'. . 255"),
        (np.ones((4, 4), np.int32), "astype.'uint16'. if they are whole numbers of 9 to 16 bits"),
        (np.ones((4, 4), np.int16), "astype.'uint16'"),
        (np.ones((3, 4, 5), np.uint8), "numpy.moveaxis"),
        (np.ones((2, 4, 5, 3), np.uint8), "one by one"),
        (np.ones((4, 4, 2), np.uint8), r"grey as \(H, W\)"),
        (np.frombuffer(b"\xff\xd8\xff", np.uint8), "image.tobytes"),
        (np.uint8(3), "no second axis"),
        (np.ones((4, 0), np.uint8), "no pixels"),
        (np.array([["a"]]), "numbers of its pixels"),
        (np.array([[None]]), "numbers of its pixels"),
        (np.zeros((4, 4), "u1,u1,u1"), "numbers of its pixels"),
        (np.ma.masked_equal(RGB, RGB[0, 0, 0]), r"image.filled\(0\)"),
        (np.broadcast_to(np.uint8(0), (2**29, 2**29)), "shrink it first"),
        (np.broadcast_to(np.uint16(0), (2**29, 2**29, 4)), "shrink it first"),
        (Convertible(TypeError("it is on a GPU; use .cpu()")), "use .cpu"),
        (Convertible(ValueError()), "ValueError"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_to_do(array: Any, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        images.load(array)


SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5) | st.tuples(
    st.integers(0, 5), st.integers(0, 5), st.sampled_from([1, 3, 4])
)
TYPES = (
    st.sampled_from(["u1", "<u2", ">u2", "O", "?", ">f4"])
    | arrays.scalar_dtypes()
    | arrays.array_dtypes(max_size=2)
)


@st.composite
def any_array(draw: st.DrawFn) -> NDArray[Any]:
    """An array of any type and shape, full of any bytes, seen in any way."""
    shape, kind = draw(SHAPES), np.dtype(draw(TYPES))
    array = np.zeros(shape, kind)
    if array.nbytes and not kind.hasobject:
        seed = draw(st.integers(0, 2**32 - 1))
        array = np.frombuffer(np.random.default_rng(seed).bytes(array.nbytes), kind).reshape(shape)
    if draw(st.booleans()):
        array = array.T
    if array.ndim and draw(st.booleans()):
        array = array[:: draw(st.sampled_from([-1, 2, -2]))]
    if draw(st.booleans()):
        array = np.broadcast_to(array, (2, *array.shape))
    return array


@settings(max_examples=200, deadline=None)
@given(any_array(), st.sampled_from(["rgb", "bgr"]), st.sampled_from([10, 12, 16]))
@example(np.broadcast_to(np.uint8(0), (2**29, 2**29, 3)), "rgb", 16)
@example(np.array(3), "rgb", 16)
def test_any_array_is_a_picture_or_an_image_error(
    array: NDArray[Any], color: Any, depth: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (array, Convertible(array)):
            try:
                picture = images.load(source, color=color, depth=depth)  # type: ignore[arg-type]
            except ImageError:
                continue
            assert picture.dtype == np.uint8
            assert picture.shape == (*array.shape[:2], 3)
            assert images.resize(picture, 8).shape == (8, 8, 3)


MODES = [
    *("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX"),
    *("RGBa", "La", "I;16", "I;16L", "I;16B", "I;16N"),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(0, 0), (0, 3), (1, 1), (4, 3)])
def test_any_pil_image_is_a_picture_or_an_image_error(mode: str, size: tuple[int, int]) -> None:
    image = Image.new(mode, size)
    image.info["transparency"] = 0 if mode in ("P", "L") else (1, 2, 3)
    if mode == "F" or 0 in size:
        with pytest.raises(ImageError, match="the PIL image"):
            images.load(image)
    else:
        picture = images.load(image)
        assert (picture.shape, picture.dtype) == ((*size[::-1], 3), np.uint8)


def test_a_pil_image_that_was_closed_or_never_made_is_an_image_error(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "part.png")
    closed = Image.open(tmp_path / "part.png")
    closed.close()
    for image in (closed, Image.Image()):
        with pytest.raises(ImageError, match="the PIL image"):
            images.load(image)
