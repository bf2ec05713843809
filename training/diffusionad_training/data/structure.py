"""Whether images show the parts of one product, or pieces of a texture.

Parts that all lie alike have features in common places, which their mean image
keeps; of a texture's features the mean keeps nothing.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Surface = Literal["auto", "part", "texture"]  # auto: as the images show

SHARED = 0.3  # of the variance; tiles of a ground surface share 0.14, bottles 0.96
_FEATURES = (2.0, 16.0)  # pixels at 256: finer is noise or a shifted part, coarser is light
_ENOUGH = 64  # images


def is_texture(images: NDArray[np.uint8]) -> bool:
    """Whether good images (N, S, S, 3) uint8, of no product on a plain ground, are a texture's."""
    return shared_structure(images) < SHARED


def shared_structure(images: NDArray[np.uint8]) -> float:
    """The share of the variance of N images' features that lies in what all of them have.

    An estimate without bias, so that it may come out a little below 0; 0 of
    images without features, or of one alone.
    """
    chosen = images[:: -(-len(images) // _ENOUGH)]
    count = len(chosen)
    if count < 2:
        return 0.0
    features = np.stack([_features(image) for image in chosen])
    of_each = float(features.var(axis=(1, 2)).mean())
    if of_each == 0:
        return 0.0
    # Independent images leave 1/N of their variance in the mean.
    of_mean = float(features.mean(axis=0).var())
    return (of_mean - of_each / count) / (of_each * (1 - 1 / count))


def _features(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(S, S, 3) uint8 -> (S, S), the details of a middle size."""
    grey = image.mean(axis=-1, dtype=np.float32)
    fine, coarse = (ndimage.gaussian_filter(grey, s * len(grey) / 256) for s in _FEATURES)
    details: NDArray[np.float32] = fine - coarse
    return details
