from __future__ import annotations

import hashlib
import io
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from diffusionad_client import contract, images
from diffusionad_client.errors import ImageError


def pattern(height: int, width: int) -> NDArray[np.uint8]:
    """A picture from integer arithmetic alone: the same on every machine."""
    y, x, channel = np.mgrid[:height, :width, :3]
    return ((x * 37 + y * 101 + channel * 59 + x * y) % 256).astype(np.uint8)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


# The digests that belong to contract.RESIZE. If one changes, every score does:
# the resize then needs a new name, and every release a new calibration.
GOLDEN = {
    (300, 400): "5c9bf5017760bf25abb1bfb985c869b7a3791556f5ac90db84bf9e0de7163aa7",
    (100, 60): "075c2f04ddf3c1ad537ca9d3c597472c39e70e5087b7ca761952bd7bb0acea65",
    (1080, 1920): "2af1c7c00f0a9570c7b68b2c7f701f7109241c5e2a7da8d67dd53bb2f92e4a33",
}


@pytest.mark.parametrize("shape", GOLDEN)
def test_the_resize_is_the_one_that_the_contract_names(shape: tuple[int, int]) -> None:
    assert contract.RESIZE == "pillow-bilinear-stretch-1"
    resized = images.resize(pattern(*shape), 256)
    assert resized.shape == (256, 256, 3)
    assert hashlib.sha256(resized.tobytes()).hexdigest() == GOLDEN[shape]


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = pattern(64, 64)
    assert images.resize(image, 64) is image


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    shrunk = images.resize(np.repeat(board[..., np.newaxis], 3, axis=-1).astype(np.uint8), 32)
    assert np.abs(shrunk.astype(int) - 127).max() <= 2


def test_exif_orientation_is_applied() -> None:
    upright = pattern(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees to see it upright
    turned = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(images.load(encode(turned, exif=exif)), upright)


def test_grey_becomes_three_equal_channels() -> None:
    loaded = images.load(encode(Image.new("L", (5, 4), 77)))
    assert loaded.shape == (4, 5, 3)
    assert (loaded == 77).all()


def test_black_and_white_becomes_0_and_255() -> None:
    assert (images.load(encode(Image.new("1", (5, 4), 1))) == 255).all()


def test_a_palette_becomes_its_colours() -> None:
    image = Image.new("RGB", (4, 4), (10, 200, 30)).quantize(4)
    assert tuple(images.load(encode(image))[0, 0]) == (10, 200, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_not_blended(mode: str) -> None:
    colour = (100, 100, 100, 0) if mode == "RGBA" else (100, 0)
    assert (images.load(encode(Image.new(mode, (3, 3), colour))) == 100).all()


def test_cmyk_becomes_rgb() -> None:
    loaded = images.load(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"))
    assert (loaded >= 254).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize(("deep", "shallow"), [(0, 0), (65535, 255), (257 * 40, 40), (128, 0)])
def test_16_bits_are_scaled_to_8_instead_of_cut(form: str, deep: int, shallow: int) -> None:
    image = Image.fromarray(np.full((4, 4), deep, np.uint16))
    assert (images.load(encode(image, form)) == shallow).all()


def test_of_several_frames_the_first_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert tuple(images.load(data)[0, 0]) == (255, 0, 0)


def test_floating_point_images_are_refused_because_their_white_is_unknown() -> None:
    data = encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        images.load(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_half_a_file_is_a_damaged_image(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), form)
    with pytest.raises(ImageError):
        images.load(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about tags it can do without
@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
def test_no_flipped_byte_gets_anything_but_an_image_or_an_image_error(form: str) -> None:
    data = encode(Image.fromarray(pattern(24, 24)), form)
    draw = random.Random(0)
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(draw.randrange(1, 6)):
            changed[draw.randrange(min(len(changed), 400))] = draw.randrange(256)
        with suppress(ImageError):
            assert images.load(bytes(changed)).dtype == np.uint8


def test_a_file_over_the_limit_of_bytes_is_refused() -> None:
    data = encode(Image.fromarray(pattern(8, 8)), "BMP")
    with pytest.raises(ImageError, match=f"more than the {len(data) - 1} bytes"):
        images.load(data, limits=images.Limits(max_bytes=len(data) - 1))
    assert images.load(data, limits=images.Limits(max_bytes=len(data))).shape == (8, 8, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_too_many_pixels_are_refused_before_any_is_decoded(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(Image.fromarray(pattern(40, 30)), form)
    assert images.load(data, limits=images.Limits(max_pixels=1200)).shape == (40, 30, 3)
    (tmp_path / "large").write_bytes(data)

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(ImageError, match="large: 30 x 40 pixels are more than the 1199"):
        images.load(tmp_path / "large", limits=images.Limits(max_pixels=1199))


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICNS"])
def test_formats_that_are_no_cameras_are_refused(form: str) -> None:
    data = encode(Image.fromarray(pattern(16, 16)), form)
    with pytest.raises(ImageError, match="not an image that can be read"):
        images.load(data)


def test_32_bit_pixels_beyond_16_bits_are_cut_at_white_and_black() -> None:
    grey = np.array([[-5, 0, 65535, 70000]], np.int32)
    assert images.load(encode(Image.fromarray(grey), "TIFF"))[0, :, 0].tolist() == [0, 0, 255, 255]


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(b"any bytes")
    assert images.read_file(tmp_path / "part.png") == b"any bytes"
    assert images.read_file(b"any bytes") == b"any bytes"


@pytest.mark.parametrize("thing", [pattern(4, 4), Image.new("RGB", (4, 4)), None])
def test_only_files_can_be_read_as_they_are(thing: Any) -> None:
    with pytest.raises(ImageError, match=f"not {type(thing).__name__}; leave out decode='server'"):
        images.read_file(thing)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"empty\.png: the file is empty"):
        images.load(tmp_path / "empty.png")


def test_text_called_png_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.png: not an image"):
        images.load(str(tmp_path / "text.png"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read: No such file"):
        images.load(tmp_path / "gone.png")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5, np.uint8),
        np.zeros((5, 5, 2), np.uint8),
        np.zeros((3, 5, 5), np.uint8),
        np.zeros((1, 5, 5, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros((5, 5, 3), np.int64),
        np.zeros((5, 5), np.int16),
        np.zeros((5, 5), np.bool_),
    ],
)
def test_an_array_of_another_form_is_refused_with_its_form(array: NDArray[Any]) -> None:
    with pytest.raises(ImageError, match=r"\(H, W, 3\) uint8, not \("):
        images.load(array)


@pytest.mark.parametrize("thing", [None, 3, ["a.png"], object()])
def test_other_things_are_refused_with_their_type(thing: Any) -> None:
    with pytest.raises(ImageError, match=type(thing).__name__):
        images.load(thing)


def test_a_view_with_its_channels_turned_round_is_taken_as_it_is_seen() -> None:
    bgr = pattern(40, 30)
    rgb = bgr[..., ::-1]
    np.testing.assert_array_equal(
        images.resize(images.load(rgb), 16), images.resize(rgb.copy(), 16)
    )
