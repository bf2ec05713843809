"""Ground truth of test images, and what is odd about it: empty, full and misshapen masks.

An empty mask of a defective image would count all of its pixels as good, and
the figures would fall for no fault of the detector.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusionad_client import masks
from diffusionad_training.data.images import read_mask
from diffusionad_training.data.layout import Sample
from diffusionad_training.data.oddities import Oddities


class GroundTruth:
    """Loads the defects of one image after another, and notes what is odd."""

    def __init__(self, root: Path, size: int) -> None:
        self._root = root
        self._size = size
        self.oddities = Oddities()

    def load(self, sample: Sample) -> NDArray[np.bool_] | None:
        """Load the defects of an image, (size, size); None where they are not known.

        Raises `DataError` if the mask cannot be read.
        """
        if sample.mask is None:
            return None if sample.is_defective else np.zeros((self._size, self._size), dtype=bool)
        mask = read_mask(sample.mask)
        self.oddities.look_at(mask, os.path.relpath(sample.mask, self._root), of=sample.path)
        return masks.resize(mask, self._size) if mask.any() else None
