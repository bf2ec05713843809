"""The pictures that a run makes of an inspected image, as files by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image

from diffusionad_client.artifacts.metadata import Verdict
from diffusionad_client.images import RGBImage
from diffusionad_client.pages import pictures
from diffusionad_client.pages.pictures import PictureFormat
from diffusionad_client.scoring.results import ANOMALY_MAPS, HEATMAPS, RECONSTRUCTIONS
from diffusionad_client.sdk.inspection import Inspection


class Heatmaps(str, Enum):
    """Of which images heat maps are made."""

    NONE = "none"  # no maps are asked for: the fastest
    NG = "ng"  # of those that are NG
    ALL = "all"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Which pictures are made."""

    heatmaps: Heatmaps = Heatmaps.ALL  # and the reconstructions beside them
    maps: bool = False  # the raw anomaly maps, in 16 bits
    heatmap_format: PictureFormat = PictureFormat.PNG

    @property
    def needs_map(self) -> bool:
        """Whether the anomaly map of an image must be asked for."""
        return self.maps or self.heatmaps is not Heatmaps.NONE

    def shows(self, verdict: Verdict) -> bool:
        """Whether an image of that verdict gets a heat map."""
        return self.heatmaps is Heatmaps.ALL or (
            self.heatmaps is Heatmaps.NG and verdict is Verdict.NG
        )


@dataclass(frozen=True)
class Picture:
    """A file of the results."""

    name: str  # relative to them, with "/" between folders
    content: bytes


def draw(
    name: str, pixels: RGBImage | None, inspection: Inspection, drawing: Drawing
) -> dict[str, Picture]:
    """Make the pictures of one image, by the field of its row that names them.

    `pixels` are None of an image that has no heat map.
    """
    made: dict[str, Picture] = {}
    over = pixels if drawing.shows(inspection.verdict) else None
    if over is not None and inspection.anomaly_map is not None:
        drawn = pictures.heat_map(over, inspection.anomaly_map, inspection.pixel_threshold)
        kind = drawing.heatmap_format
        file = f"{HEATMAPS}/{name}{kind.suffix}"
        made["heatmap"] = Picture(file, pictures.encode(drawn, kind))
    if over is not None and inspection.reconstruction is not None:
        normal = Image.fromarray(np.ascontiguousarray(inspection.reconstruction))
        normal = normal.resize(pictures.picture_size(over), Image.Resampling.BILINEAR)
        made["reconstruction"] = Picture(f"{RECONSTRUCTIONS}/{name}.jpg", pictures.jpeg(normal))
    if drawing.maps and inspection.anomaly_map is not None:
        content = pictures.map_png(inspection.anomaly_map)
        made["anomaly_map"] = Picture(f"{ANOMALY_MAPS}/{name}.png", content)
    return made
