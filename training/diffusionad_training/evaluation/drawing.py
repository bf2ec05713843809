"""From an example to the pictures that the page shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from diffusionad_client import heat
from diffusionad_client.artifacts.roi import Mask
from diffusionad_client.images import RGBImage
from diffusionad_client.pages.rendering import THUMBNAIL, open_picture, thumbnail
from diffusionad_training.evaluation.examples import Example

_TRUTH = (0, 229, 255)  # no colour of the map's, nor of most products
_MARGIN = 3  # pixels from a defect to its outline, which would hide a thin one
_DIMMED = 0.35  # brightness left outside the region of interest


@dataclass(frozen=True)
class Card:
    """One image as the page shows it; pictures are data URIs, None where there is none."""

    path: str  # relative to the data folder
    defect: str
    kind: str  # good or defective
    score: float
    image: str | None
    reconstruction: str | None
    anomaly_map: str | None


def draw(example: Example, root: Path, roi: Mask | None, map_middle: float) -> Card:
    """Draw the image and its map, the ground truth outlined, and the reconstruction.

    `map_middle` is the value in the middle of the map's colours.
    """
    sample = example.sample
    path = sample.path.relative_to(root).as_posix()
    opened = open_picture(root, path)
    # Of a file that is gone since it was scored there is the map still, on grey.
    image = _fit(Image.new("RGB", (1, 1), (128, 128, 128)) if opened is None else opened)
    height, width = image.shape[:2]
    mapped = heat.blend(image, heat.stretch_map(example.anomaly_map, height, width), map_middle)
    for picture in (image, mapped):
        if roi is not None:
            outside = ~_stretch(roi, height, width)
            picture[outside] = np.rint(picture[outside] * _DIMMED).astype(np.uint8)
        if example.mask is not None and example.mask.any():
            defect = _stretch(example.mask, height, width)
            around = ndimage.binary_dilation(defect, iterations=_MARGIN)
            heat.draw_outline(picture, around, _TRUTH)
    repainted = None
    if example.reconstruction is not None:
        repainted = Image.fromarray(example.reconstruction).resize(
            (width, height), Image.Resampling.BILINEAR
        )
    return Card(
        path=path,
        defect=sample.defect,
        kind="defective" if sample.is_defective else "good",
        score=example.score,
        image=None if opened is None else thumbnail(Image.fromarray(image)),
        reconstruction=thumbnail(repainted),
        anomaly_map=thumbnail(Image.fromarray(mapped)),
    )


def _fit(picture: Image.Image) -> RGBImage:
    """Bring a picture to the size in which it is shown, so that outlines are drawn on it as is."""
    factor = THUMBNAIL / max(picture.size)
    width, height = (max(round(side * factor), 1) for side in picture.size)
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


def _stretch(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
