"""Masks: anything but 0 marks, before any scaling, and is still there when they shrink."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusionad_client import masks
from diffusionad_client.errors import ImageError

SQUARE = np.zeros((32, 48), bool)
SQUARE[8:16, 20:30] = True


@pytest.mark.parametrize("label", [1, 100, 128, 255])
@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [
        (np.uint8, "png"),
        (np.uint16, "png"),
        (np.uint16, "tif"),
        (np.int32, "tif"),
        (np.float32, "tif"),
    ],
)
def test_a_label_marks_in_any_depth(
    tmp_path: Path, label: int, dtype: type[np.generic], suffix: str
) -> None:
    path = tmp_path / f"mask.{suffix}"
    Image.fromarray((SQUARE * label).astype(dtype)).save(path)
    np.testing.assert_array_equal(masks.read(path), SQUARE)


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "CMYK"])
def test_what_is_not_black_marks_in_any_mode(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "mask.tif"
    Image.fromarray(SQUARE.astype(np.uint8) * 255).convert(mode).save(path)
    np.testing.assert_array_equal(masks.read(path), SQUARE)


def test_a_palette_of_labels_marks_by_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(SQUARE.astype(np.uint8) * 2)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(masks.read(tmp_path / "mask.png"), SQUARE)


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_black_marks_nothing_in_either_polarity(tmp_path: Path, bits: int) -> None:
    white = (1 << bits) - 1
    dtype = np.uint16 if bits == 16 else np.uint8
    turned = Image.fromarray(np.where(SQUARE, 0, 255 if bits == 1 else white).astype(dtype))
    path = tmp_path / "mask.tif"
    if bits == 1:  # for Pillow turns what it writes itself
        Image.fromarray(SQUARE).save(path, tiffinfo={262: 0})
    elif bits == 8:
        Image.fromarray(SQUARE.astype(np.uint8) * 255).save(path, tiffinfo={262: 0})
    else:
        turned.save(path, tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(masks.read(path), SQUARE)


def rgba(colour: np.ndarray, alpha: np.ndarray, path: Path) -> Path:
    channels = [colour] * 3 + [alpha]
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("colour", [0, 255, 90])
def test_marks_may_be_drawn_in_the_alpha_channel(tmp_path: Path, colour: int) -> None:
    path = rgba(np.full(SQUARE.shape, colour), SQUARE * 255, tmp_path / "mask.png")
    np.testing.assert_array_equal(masks.read(path), SQUARE)


@pytest.mark.parametrize("alpha", [255, 0])
def test_an_alpha_channel_that_is_alike_everywhere_says_nothing(tmp_path: Path, alpha: int) -> None:
    path = rgba(SQUARE * 255, np.full(SQUARE.shape, alpha), tmp_path / "mask.png")
    np.testing.assert_array_equal(masks.read(path), SQUARE)


def test_colours_and_alpha_may_say_the_same(tmp_path: Path) -> None:
    path = rgba(SQUARE * 200, SQUARE * 255, tmp_path / "mask.png")
    np.testing.assert_array_equal(masks.read(path), SQUARE)


def test_colours_and_alpha_that_mark_different_pixels_are_refused(tmp_path: Path) -> None:
    path = rgba(SQUARE * 255, SQUARE[::-1] * 255, tmp_path / "mask.png")
    with pytest.raises(ImageError, match=r"mask\.png: the colours .* 80 pixels, its alpha .* 80"):
        masks.read(path)


@pytest.mark.parametrize("form", ["P", "LA"])
def test_transparent_colours_are_an_alpha_channel(tmp_path: Path, form: str) -> None:
    path = tmp_path / "mask.png"
    if form == "P":
        image = Image.fromarray(SQUARE.astype(np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.save(path, transparency=0)
    else:
        alpha = Image.fromarray(SQUARE.astype(np.uint8) * 255)
        Image.merge("LA", (Image.new("L", alpha.size), alpha)).save(path)
    np.testing.assert_array_equal(masks.read(path), SQUARE)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_no_mark_is_lost_or_made_up_when_a_mask_is_stretched(
    height: int, width: int, size: int, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) > 0.95
    stretched = masks.resize(mask, size)
    assert stretched.shape == (size, size)
    assert stretched.any() == mask.any()
    assert masks.resize(~mask, size).any() == (~mask).any()
    if height >= size and width >= size:
        rows, columns = np.nonzero(mask)
        where = {(r, c) for r, c in zip(*np.nonzero(stretched), strict=True)}
        # The last of the pixels (numbered i * size / height, rounded down) that begin at or before.
        made = {
            (((r + 1) * size - 1) // height, ((c + 1) * size - 1) // width)
            for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
        }
        assert made == where


def test_enlarging_takes_the_nearest_pixel() -> None:
    mask = np.random.default_rng(0).random((50, 30)) > 0.5
    nearest = Image.fromarray(mask).resize((128, 128), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(masks.resize(mask, 128), np.asarray(nearest))


def test_a_thin_line_survives() -> None:
    line = np.zeros((2048, 2048), bool)
    line[1027, 300:1700] = True
    assert masks.resize(line, 256).sum() == 176


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"mask\.png"):
        masks.read(tmp_path / "mask.png")
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match="a named pipe"):
            masks.read(tmp_path / "pipe.png")
