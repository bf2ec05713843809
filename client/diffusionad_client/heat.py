"""What heat maps look like: the colours of a map's values over an image, and a defect's outline.

The pictures of `score`, the pages of training and `Inspection.overlay` are all
drawn here. Nothing here knows files or servers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client.pixels import RGBImage

# Colour over the image by the map's value: red, green, blue, opacity. The middle
# stop is the pixel threshold, so yellow and hotter is what counts as defect.
_STOPS = (
    (0.00, (255, 236, 120, 0)),
    (0.25, (255, 236, 120, 20)),
    (0.50, (255, 214, 10, 110)),
    (0.75, (255, 92, 0, 165)),
    (1.00, (190, 0, 38, 205)),
)
STEPS = 256


def lay_over(image: RGBImage, values: NDArray[np.float32], pixel_threshold: float) -> RGBImage:
    """Draw a map (H, W) over an image (H, W, 3): its colours, and its defects outlined."""
    picture = blend(image, values, pixel_threshold)
    draw_outline(picture, defects(values, pixel_threshold))
    return picture


def defects(values: NDArray[np.float32], pixel_threshold: float) -> NDArray[np.bool_]:
    """Tell of each pixel of a map (H, W) whether it belongs to a defect."""
    area: NDArray[np.bool_] = values >= pixel_threshold
    return area


def blend(image: RGBImage, values: NDArray[np.float32], pixel_threshold: float) -> RGBImage:
    """Lay the colours of map values (H, W) over an image (H, W, 3); gives a new one."""
    steps = np.clip(values * (STEPS - 1), 0, STEPS - 1).astype(np.uint8)
    # Pillow looks colours up and lays them over in a seventh of numpy's time.
    colours = Image.fromarray(steps)
    colours.putpalette(np.rint(colours_of(pixel_threshold)).astype(np.uint8).tobytes(), "RGBA")
    layer = colours.convert("RGBA")
    blended = Image.fromarray(image)
    blended.paste(layer, (0, 0), layer)
    return np.array(blended)


def draw_outline(
    picture: RGBImage, area: NDArray[np.bool_], colour: tuple[int, int, int] = (255, 255, 255)
) -> None:
    """Outline an area (H, W) in a picture (H, W, 3), in place: the colour with black around it."""
    inside, outside = _outline(area)
    picture[outside] = 0
    picture[inside] = colour


def stretch_map(anomaly_map: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize a map bilinearly to (height, width)."""
    if anomaly_map.shape == (height, width):
        return anomaly_map
    picture = Image.fromarray(np.ascontiguousarray(anomaly_map, dtype=np.float32))
    stretched = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(stretched, dtype=np.float32)


@lru_cache(maxsize=32)
def colours_of(pixel_threshold: float) -> NDArray[np.float32]:
    """Give the colour of each map value: (256, 4) RGBA."""
    middle = min(max(pixel_threshold, 1e-3), 1 - 1e-3)
    values = np.linspace(0, 1, STEPS)
    place = np.interp(values, [0, middle, 1], [0, 0.5, 1])
    stops = [stop for stop, _ in _STOPS]
    channels = zip(*(colour for _, colour in _STOPS), strict=True)
    return np.stack([np.interp(place, stops, c) for c in channels], axis=-1).astype(np.float32)


def _outline(
    defect: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Give the defect's own border pixels, and the pixels just around it."""
    padded = np.pad(defect, 1, mode="edge")
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    whole = np.logical_and.reduce(around)
    near = np.logical_or.reduce(around)
    return defect & ~whole, near & ~defect
