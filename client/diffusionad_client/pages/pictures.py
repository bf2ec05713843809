"""Pictures of an inspection: heat maps, reconstructions and maps as image files."""

from __future__ import annotations

import io
import zlib
from enum import Enum
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from diffusionad_client import regular_files
from diffusionad_client.errors import ImageError
from diffusionad_client.heat import STEPS, colours_of, lay_over, stretch_map
from diffusionad_client.images import RGBImage

MAX_SIDE = 512  # of a heat map; the model saw less
MIN_SIDE = 256  # smaller images are enlarged to it, so that the scale below fits

SCALE_HEIGHT = 24  # the strip below the picture
_STRIP = (24, 26, 32)
_INK = (232, 234, 240)


class PictureFormat(str, Enum):
    """What heat maps are written as. PNG loses nothing; JPEG and WebP are smaller and faster."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    def __str__(self) -> str:
        return self.value

    @property
    def suffix(self) -> str:
        """How such files end."""
        return ".jpg" if self is PictureFormat.JPEG else f".{self.value}"


def heat_map(
    image: RGBImage, anomaly_map: NDArray[np.float32], pixel_threshold: float
) -> Image.Image:
    """Lay the map over the image, draw the outline of its defects, and put the scale below."""
    width, height = picture_size(image)
    background = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    values = stretch_map(anomaly_map, height, width)
    picture = lay_over(np.asarray(background), values, pixel_threshold)

    framed = Image.new("RGB", (width, height + SCALE_HEIGHT), _STRIP)
    framed.paste(Image.fromarray(picture))
    framed.paste(_scale(width, pixel_threshold), (0, height))
    return framed


def without_scale(picture: Image.Image) -> Image.Image:
    """Cut the scale off a heat map."""
    return picture.crop((0, 0, picture.width, picture.height - SCALE_HEIGHT))


def picture_size(image: RGBImage) -> tuple[int, int]:
    """Width and height of the pictures made of an image: its shape, at most MAX_SIDE."""
    height, width = image.shape[:2]
    longest = max(height, width)
    factor = min(max(longest, MIN_SIDE), MAX_SIDE) / longest
    return max(round(width * factor), 1), max(round(height * factor), 1)


def png(picture: Image.Image) -> bytes:
    """Encode without loss."""
    # Run lengths alone: of photographs as small as zlib's usual search, in two fifths of the time.
    return _encode(picture, "PNG", compress_type=zlib.Z_RLE)


def jpeg(picture: Image.Image, quality: int = 88) -> bytes:
    """Encode for the eye."""
    return _encode(picture, "JPEG", quality=quality)


def encode(picture: Image.Image, kind: PictureFormat) -> bytes:
    """Encode as the user chose."""
    if kind is PictureFormat.PNG:
        return png(picture)
    if kind is PictureFormat.JPEG:
        return jpeg(picture)
    return _encode(picture, "WEBP", quality=88, method=0)


def map_png(anomaly_map: NDArray[np.float32]) -> bytes:
    """Encode a map in 16-bit grey: 65535 is 1.0."""
    values = np.rint(np.clip(anomaly_map, 0, 1) * np.float32(65535)).astype(np.uint16)
    return _encode(Image.fromarray(values), "PNG", compress_level=4)


def read_map_png(path: Path) -> NDArray[np.float32]:
    """Read what `map_png` encoded: (H, W) in [0, 1]. Raises `ImageError`."""
    try:
        with Image.open(io.BytesIO(regular_files.read(path))) as picture:
            values = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise ImageError(f"{path}: the anomaly map cannot be read: {exc}") from exc
    if values.dtype != np.uint16 or values.ndim != 2:
        raise ImageError(f"{path}: not an anomaly map: {values.shape} {values.dtype}")
    return values.astype(np.float32) / np.float32(65535)


def _encode(picture: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


@lru_cache(maxsize=32)
def _scale(width: int, pixel_threshold: float) -> Image.Image:
    """Draw the strip below a heat map: its colours from 0 to 1, with the pixel threshold."""
    strip = Image.new("RGB", (width, SCALE_HEIGHT), _STRIP)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(11)
    bar_left, bar_right = 16, width - 16
    if bar_right - bar_left < 96:  # too narrow to be read
        return strip
    ramp = colours_of(pixel_threshold)[np.linspace(0, STEPS - 1, bar_right - bar_left).astype(int)]
    opacity = np.maximum(ramp[:, 3:] / 205, 0.06)
    colours = ramp[:, :3] * opacity + np.asarray(_STRIP, dtype=np.float32) * (1 - opacity)
    bar = np.repeat(np.rint(colours).astype(np.uint8)[np.newaxis], 6, axis=0)
    strip.paste(Image.fromarray(bar), (bar_left, 3))
    mark = bar_left + pixel_threshold * (bar_right - bar_left - 1)
    draw.line((mark, 1, mark, 10), fill=_INK)
    draw.text((bar_left, 10), "0", font=font, fill=_INK, anchor="mt")
    draw.text((bar_right, 10), "1", font=font, fill=_INK, anchor="mt")
    label = f"defect from {pixel_threshold:.2f}"
    half = draw.textlength(label, font=font) / 2
    centre = min(max(mark, bar_left + half + 10), bar_right - half - 10)
    draw.text((centre, 10), label, font=font, fill=_INK, anchor="mt")
    return strip
