"""The pictures that a run makes of an inspected image, as files by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffusionad_client.images import RGBImage
from diffusionad_client.pages import pictures
from diffusionad_client.pages.pictures import PictureFormat
from diffusionad_client.scoring.results import ANOMALY_MAPS, HEATMAPS, RECONSTRUCTIONS
from diffusionad_client.sdk.inspection import Inspection


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Which pictures are made."""

    heatmaps: bool = True  # and the reconstructions beside them
    maps: bool = False  # the raw anomaly maps, in 16 bits
    heatmap_format: PictureFormat = PictureFormat.PNG


@dataclass(frozen=True)
class Picture:
    """A file of the results."""

    name: str  # relative to them, with "/" between folders
    content: bytes


def draw(
    name: str, pixels: RGBImage, inspection: Inspection, drawing: Drawing
) -> dict[str, Picture]:
    """Make the pictures of one image, by the field of its row that names them."""
    made: dict[str, Picture] = {}
    if drawing.heatmaps and inspection.anomaly_map is not None:
        drawn = pictures.heat_map(pixels, inspection.anomaly_map, inspection.pixel_threshold)
        kind = drawing.heatmap_format
        file = f"{HEATMAPS}/{name}{kind.suffix}"
        made["heatmap"] = Picture(file, pictures.encode(drawn, kind))
    if inspection.reconstruction is not None:
        normal = Image.fromarray(np.ascontiguousarray(inspection.reconstruction))
        normal = normal.resize(pictures.picture_size(pixels), Image.Resampling.BILINEAR)
        made["reconstruction"] = Picture(f"{RECONSTRUCTIONS}/{name}.jpg", pictures.jpeg(normal))
    if drawing.maps and inspection.anomaly_map is not None:
        content = pictures.map_png(inspection.anomaly_map)
        made["anomaly_map"] = Picture(f"{ANOMALY_MAPS}/{name}.png", content)
    return made
