"""What an inspection of one image found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.errors import DiffusionADError
from diffusionad_client.sdk.arguments import check_map_size, check_thresholds


@dataclass(frozen=True)
class Timings:
    """Where the time of one inspection went, in seconds."""

    decode_s: float  # from the file to RGB pixels
    resize_s: float  # to the model's size
    request_s: float  # until the server's answer was here


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspection:
    """The answer for one image. The arrays are read-only; copy them to change them.

    `anomaly_map` is (S, S) float32 in [0, 1], `reconstruction` is (S, S, 3)
    uint8 RGB, both at the model's size S, and None if they were not asked for.
    """

    score: float
    verdict: Verdict
    thresholds: Thresholds  # those that gave the verdict
    anomaly_map: NDArray[np.float32] | None
    reconstruction: NDArray[np.uint8] | None
    pixel_threshold: float  # map values at or above it belong to a defect
    model: str
    version: str  # of the model, as the server answered
    release: str  # digest of the release that the server answered from
    roi: str | None = None  # digest of the region that was inspected; None: the whole image
    timings: Timings
    request_id: str = ""  # as the server's logs and traces have it
    server: str = ""  # the address that answered

    def judged_by(self, thresholds: Thresholds) -> Inspection:
        """Give the same answer with the verdict of other thresholds."""
        if check_thresholds(thresholds) is None or thresholds == self.thresholds:
            return self  # in float32 the server may have judged a score at the very threshold
        return replace(self, thresholds=thresholds, verdict=thresholds.verdict(self.score))

    def anomaly_map_at(self, height: int, width: int) -> NDArray[np.float32]:
        """Stretch the map over an image of that size: (height, width) float32 in [0, 1]."""
        if self.anomaly_map is None:
            raise DiffusionADError(
                "this inspection has no anomaly map; ask for one with inspect(anomaly_map=True)"
            )
        return stretch_map(self.anomaly_map, *check_map_size(height, width))


def stretch_map(anomaly_map: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize a map bilinearly to (height, width)."""
    if anomaly_map.shape == (height, width):
        return anomaly_map
    picture = Image.fromarray(np.ascontiguousarray(anomaly_map, dtype=np.float32))
    stretched = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(stretched, dtype=np.float32)
