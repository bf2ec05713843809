"""Depth and polarity are those that a file states, in every kind of file that states them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from diffusionad_client import images, pixels
from diffusionad_client.errors import ImageError

GREY = (np.arange(32 * 48).reshape(32, 48) % 236).astype(np.uint8)  # the picture, in 8 bits
FULL = GREY.astype(np.uint16) * 257
TWELVE = np.rint(GREY.astype(float) * 4095 / 255).astype(np.uint16)
PHOTOMETRIC, MAX_SAMPLE, S_MAX_SAMPLE, ORIENTATION, EXIF_IFD = 262, 281, 341, 274, 34665
_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "u": 7}


def tiff(
    data: bytes, bits: int | tuple[int, ...], *, order: str = "<", **extra: tuple[int, str, Any]
) -> bytes:
    """Write an uncompressed TIFF of 48 x 32, with further tags (number, type, value)."""
    depths = bits if isinstance(bits, tuple) else (bits,)
    tags: dict[int, tuple[str, Any]] = {
        256: ("H", [48]),
        257: ("H", [32]),
        258: ("H", list(depths)),
        259: ("H", [1]),
        262: ("H", [2 if len(depths) > 1 else 1]),
        273: ("I", [8]),
        277: ("H", [len(depths)]),
        278: ("H", [32]),
        279: ("I", [len(data)]),
    }
    tags.update({number: (kind, value) for number, kind, value in extra.values()})
    data += b"\0" * (len(data) % 2)
    place = 8 + len(data)
    outside = place + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for number, (kind, value) in sorted(tags.items()):
        packed = value if kind in "su" else struct.pack(f"{order}{len(value)}{kind}", *value)
        entry = struct.pack(f"{order}HHI", number, _TYPES[kind], len(value))
        if len(packed) > 4:
            entry += struct.pack(f"{order}I", outside + len(tail))
            tail += packed + b"\0" * (len(packed) % 2)
        else:
            entry += packed.ljust(4, b"\0")
        entries += entry
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + tail


def packed_12(values: NDArray[np.uint16]) -> bytes:
    first, second = values.reshape(-1, 2).astype(np.uint32).T
    both = first << 12 | second
    return np.stack([both >> 16, both >> 8 & 255, both & 255], axis=-1).astype(np.uint8).tobytes()


def png(image: Image.Image | NDArray[Any], *, sbit: bytes | None = None) -> bytes:
    extra = PngImagePlugin.PngInfo()
    if sbit is not None:
        extra.add(b"sBIT", sbit)
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, "PNG", pnginfo=extra)
    return buffer.getvalue()


def deep_png(values: NDArray[np.uint16], colour: int, sbit: bytes | None) -> bytes:
    """Write a PNG of 16 bits a channel, which Pillow cannot."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))]
    chunks += [] if sbit is None else [(b"sBIT", sbit)]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )  # fmt: skip


WHITE_IS_ZERO = (PHOTOMETRIC, "H", [0])

SAME_PICTURE = {
    "8 bits": tiff(GREY.tobytes(), 8),
    "8 bits, white is zero": tiff((255 - GREY).tobytes(), 8, photometric=WHITE_IS_ZERO),
    "16 bits": tiff(FULL.tobytes(), 16),
    "16 bits, big-endian": tiff(FULL.astype(">u2").tobytes(), 16, order=">"),
    "16 bits, white is zero": tiff((65535 - FULL).tobytes(), 16, photometric=WHITE_IS_ZERO),
    "12 bits, packed": tiff(packed_12(TWELVE), 12),
    "12 in 16 bits, MaxSampleValue": tiff(TWELVE.tobytes(), 16, largest=(MAX_SAMPLE, "H", [4095])),
    "12 in 16 bits, MaxSampleValue of a wrong type": tiff(
        TWELVE.tobytes(), 16, largest=(MAX_SAMPLE, "s", b"4095\0")
    ),
    "12 in 16 bits, SMaxSampleValue": tiff(
        TWELVE.tobytes(), 16, largest=(S_MAX_SAMPLE, "H", [4095])
    ),
    "12 in 16 bits, MaxSampleValue, white is zero": tiff(
        (4095 - TWELVE).tobytes(),
        16,
        largest=(MAX_SAMPLE, "H", [4095]),
        photometric=WHITE_IS_ZERO,
    ),
    "12 in 16 bits, sBIT": png(TWELVE, sbit=b"\x0c"),
    "12 scaled to 16 bits, sBIT": png(TWELVE << 4 | TWELVE >> 8, sbit=b"\x0c"),
    "12 shifted into 16 bits, sBIT": png(TWELVE << 4, sbit=b"\x0c"),
    "the largest pixel of a picture as its MaxSampleValue": tiff(
        FULL.tobytes(), 16, largest=(MAX_SAMPLE, "H", [int(FULL.max())])
    ),
    "a MaxSampleValue that the picture exceeds": tiff(
        FULL.tobytes(), 16, largest=(MAX_SAMPLE, "H", [4095])
    ),
    "a MaxSampleValue of nonsense": tiff(FULL.tobytes(), 16, largest=(MAX_SAMPLE, "s", b"white\0")),
    "an sBIT of nonsense": png(FULL, sbit=b"\xc8"),
}


@pytest.mark.parametrize("kind", SAME_PICTURE)
def test_the_same_picture_is_read_from_every_depth_and_polarity(kind: str) -> None:
    loaded = images.load(SAME_PICTURE[kind])
    np.testing.assert_array_equal(loaded, np.repeat(GREY[..., np.newaxis], 3, axis=-1))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_read_in_either_polarity(bits: int) -> None:
    values = GREY >> (8 - bits)
    rows = [
        int("".join(f"{value:0{bits}b}" for value in row), 2).to_bytes(48 * bits // 8, "big")
        for row in values.tolist()
    ]
    inverted = bytes(255 - byte for byte in b"".join(rows))
    black_is_zero = images.load(tiff(b"".join(rows), bits))
    white_is_zero = images.load(tiff(inverted, bits, photometric=WHITE_IS_ZERO))
    np.testing.assert_array_equal(black_is_zero, white_is_zero)
    np.testing.assert_array_equal(black_is_zero[..., 0], values * (255 // ((1 << bits) - 1)))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compression_changes_nothing(compression: str) -> None:
    buffer = io.BytesIO()
    picture = Image.fromarray(65535 - FULL)
    picture.save(buffer, "TIFF", compression=compression, tiffinfo={PHOTOMETRIC: 0})
    with Image.open(io.BytesIO(buffer.getvalue())) as written:
        assert written.tag_v2[PHOTOMETRIC] == 0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(images.load(buffer.getvalue())[..., 0], GREY)


def test_a_dark_image_that_is_scaled_up_stays_dark() -> None:
    dark = (TWELVE >> 8).astype(np.uint16) << 4  # all below 4096, as 12 unscaled bits would be
    assert images.load(png(dark, sbit=b"\x0c")).max() == 1


def test_a_pil_image_is_read_as_its_file_is(tmp_path: Path) -> None:
    for name in ("12 in 16 bits, sBIT", "16 bits, white is zero"):
        path = tmp_path / name
        path.write_bytes(SAME_PICTURE[name])
        with Image.open(path) as image:
            np.testing.assert_array_equal(images.load(image), images.load(path))


def test_a_pgm_states_its_depth() -> None:
    data = b"P5 48 32 4095\n" + TWELVE.astype(">u2").tobytes()
    np.testing.assert_array_equal(images.load(data)[..., 0], GREY)


def test_where_nothing_is_stated_the_product_s_depth_decides() -> None:
    assert images.load(png(TWELVE)).max() == 15
    np.testing.assert_array_equal(images.load(png(TWELVE), depth=12)[..., 0], GREY)
    turned = tiff((4095 - TWELVE).tobytes(), 16, photometric=WHITE_IS_ZERO)
    np.testing.assert_array_equal(images.load(turned, depth=12)[..., 0], GREY)
    np.testing.assert_array_equal(
        images.load(Image.fromarray(TWELVE), depth=12), images.load(png(TWELVE), depth=12)
    )


@pytest.mark.parametrize("kind", [kind for kind in SAME_PICTURE if "sBIT" in kind])
def test_what_a_file_states_goes_before_the_product_s_depth(kind: str) -> None:
    if "nonsense" not in kind:
        np.testing.assert_array_equal(images.load(SAME_PICTURE[kind], depth=10)[..., 0], GREY)


def test_pixels_of_8_bits_have_no_other_depth() -> None:
    np.testing.assert_array_equal(images.load(png(GREY), depth=12)[..., 0], GREY)


def test_a_pixel_beyond_the_product_s_depth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(png(FULL))
    with pytest.raises(ImageError, match=r"part\.png: a pixel is 60395, and .* have 12 bits"):
        images.load(tmp_path / "part.png", depth=12)


COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
COLOUR_12 = np.rint(COLOUR.astype(float) * 4095 / 255).astype(np.uint16)
OPAQUE = np.full((32, 48, 1), 65535, np.uint16)
BITS_3 = (16, 16, 16)

SAME_COLOURS = {
    "PNG, sBIT": deep_png(COLOUR_12, 2, b"\x0c" * 3),
    "PNG with alpha, sBIT": deep_png(np.concatenate([COLOUR_12, OPAQUE], -1), 6, b"\x0c" * 4),
    "TIFF": tiff(COLOUR_12.tobytes(), BITS_3, largest=(MAX_SAMPLE, "H", [4095] * 3)),
    "TIFF, big-endian": tiff(
        COLOUR_12.astype(">u2").tobytes(), BITS_3, order=">", largest=(MAX_SAMPLE, "H", [4095] * 3)
    ),
}


@pytest.mark.parametrize("kind", SAME_COLOURS)
def test_colours_of_a_stated_depth_are_full(kind: str) -> None:
    np.testing.assert_array_equal(images.load(SAME_COLOURS[kind]), COLOUR)


@pytest.mark.parametrize("data", [deep_png(COLOUR_12, 2, None), tiff(COLOUR_12.tobytes(), BITS_3)])
def test_the_product_s_depth_is_that_of_colours_too(data: bytes) -> None:
    np.testing.assert_array_equal(images.load(data, depth=12), COLOUR)
    np.testing.assert_array_equal(images.load(data), COLOUR_12 >> 8)
    dark = images.read_pixels(data)
    assert isinstance(dark, images.Deep)
    assert dark.largest == COLOUR_12.max()


def test_colours_of_16_bits_are_read_as_ever() -> None:
    full = COLOUR.astype(np.uint16) * 257
    for data in (
        deep_png(full, 2, None),
        deep_png(COLOUR_12 << 4 | COLOUR_12 >> 8, 2, b"\x0c" * 3),
        tiff(full.tobytes(), BITS_3),
    ):
        np.testing.assert_array_equal(images.load(data), COLOUR)
        np.testing.assert_array_equal(images.load(data, depth=12), COLOUR)


def test_colours_lying_on_their_side_are_turned_in_both_halves() -> None:
    data = tiff(COLOUR_12.tobytes(), BITS_3, orientation=(ORIENTATION, "H", [6]))
    np.testing.assert_array_equal(images.load(data, depth=12), np.rot90(COLOUR, -1))


def test_what_would_come_out_black_is_refused() -> None:
    grey_and_alpha = np.concatenate([TWELVE[..., np.newaxis], OPAQUE], axis=-1)
    with pytest.raises(ImageError, match="12 bits in the lower ones"):
        images.load(deep_png(grey_and_alpha, 4, b"\x0c\x0c"))
    with (
        Image.open(io.BytesIO(SAME_COLOURS["PNG, sBIT"])) as image,
        pytest.raises(ImageError, match="12 bits in the lower ones"),
    ):
        images.load(image)


@pytest.mark.parametrize(
    ("kind", "value"), [("H", [6]), ("s", b"6\0"), ("B", [6]), ("u", b"\x06"), ("I", [6])]
)
def test_an_orientation_of_a_wrong_type_is_applied_where_it_can_be(kind: str, value: Any) -> None:
    turned = images.load(tiff(GREY.tobytes(), 8, orientation=(ORIENTATION, kind, value)))
    np.testing.assert_array_equal(turned[..., 0], np.rot90(GREY, -1))


@pytest.mark.parametrize("value", [b"up\0", b"", b"99\0"])
def test_an_orientation_that_says_nothing_is_passed_over(value: bytes) -> None:
    loaded = images.load(tiff(GREY.tobytes(), 8, orientation=(ORIENTATION, "s", value)))
    np.testing.assert_array_equal(loaded[..., 0], GREY)


def test_one_wrongly_typed_tag_refuses_no_picture() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    block = bytearray(exif.tobytes())  # one tag: Exif, TIFF header, a count of 1, then the tag
    wrong = struct.pack(">HHI4s" if b"MM" in block[:10] else "<HHI4s", 282, 7, 4, b"ab\0\0")
    order = ">" if b"MM" in block[:10] else "<"
    start = block.index(b"MM" if order == ">" else b"II") + 8
    block[start : start + 2] = struct.pack(f"{order}H", 2)
    block[start + 14 : start + 14] = wrong
    for form in ("JPEG", "PNG", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(GREY).convert("RGB").save(buffer, form, exif=bytes(block), quality=100)
        assert images.load(buffer.getvalue()).shape == (48, 32, 3)  # turned upright


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the tag
@pytest.mark.parametrize(("kind", "value"), [("s", b"no place\0"), ("B", [1]), ("I", [2**31])])
def test_a_tiff_whose_exif_data_cannot_be_found_is_read(kind: str, value: Any) -> None:
    for bits, data in ((8, GREY.tobytes()), (16, FULL.tobytes())):
        loaded = images.load(tiff(data, bits, exif=(EXIF_IFD, kind, value)))
        np.testing.assert_array_equal(loaded[..., 0], GREY)


def test_a_tiff_that_cannot_be_read_is_no_other_kind_of_file() -> None:
    data = tiff(packed_12(4095 - TWELVE), 12, photometric=WHITE_IS_ZERO)
    with pytest.raises(ImageError, match="a TIFF of a kind that cannot be read"):
        images.load(data)


@pytest.mark.parametrize("associated", [1, 2])
def test_alpha_of_a_tiff_is_dropped_whichever_kind_it_is(associated: int) -> None:
    both = np.stack([GREY, np.full_like(GREY, 255)], axis=-1)
    extra = {"photometric": (PHOTOMETRIC, "H", [1]), "alpha": (338, "H", [associated])}
    data = tiff(both.tobytes(), (8, 8), **extra)
    if associated == 1 and int(PIL.__version__.partition(".")[0]) < 13:
        # The last Pillow for Python 3.10 does not know them, and that is said.
        with pytest.raises(ImageError, match="a TIFF of a kind that cannot be read"):
            images.load(data)
        return
    np.testing.assert_array_equal(images.load(data)[..., 0], GREY)


def test_a_palette_with_transparent_colours_becomes_its_colours() -> None:
    picture = Image.new("RGB", (4, 4), (10, 200, 30)).quantize(4)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=b"\0\x80\xff")
    assert tuple(images.load(buffer.getvalue())[0, 0]) == (10, 200, 30)


def test_every_value_of_16_bits_is_scaled_as_ever() -> None:
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    before = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(images.load(png(values))[..., 0], before)
    np.testing.assert_array_equal(pixels.Deep(values, True, "it").to_rgb()[..., 0], 255 - before)
