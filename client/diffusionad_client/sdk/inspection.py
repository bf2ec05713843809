"""What an inspection of one image found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusionad_client import heat, images
from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.contract import FULL_DEPTH
from diffusionad_client.errors import DiffusionADError, ImageError
from diffusionad_client.sdk.arguments import check_map_size, check_thresholds
from diffusionad_client.sdk.regions import Region, find_regions, scaled

_SHOWN_DIGITS = 12  # of a release's name


@dataclass(frozen=True)
class Timings:
    """Where the time of one inspection went, in seconds."""

    decode_s: float  # from the file to RGB pixels
    resize_s: float  # to the model's size
    request_s: float  # until the server's answer was here


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Inspection:
    """The answer for one image. The arrays are read-only; copy them to change them.

    `anomaly_map` is (S, S) float32 in [0, 1], `reconstruction` is (S, S, 3)
    uint8 RGB, both at the model's size S, and None if they were not asked for.
    Of an inspection with a region of interest the map is 0 outside that region.
    The image itself is not kept. It can be pickled, arrays included.
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
    size: tuple[int, int] | None = None  # height and width of the image; None: not known
    depth: int = FULL_DEPTH  # bits of the release's grey images, where their files do not say
    request_id: str = ""  # as the server's logs and traces have it
    server: str = ""  # the address that answered

    def __post_init__(self) -> None:
        self._protect()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._protect()  # pickle forgets that they were

    def _protect(self) -> None:
        for name in ("anomaly_map", "reconstruction"):
            array = getattr(self, name)
            if array is not None and array.flags.writeable:
                array = array.view()
                array.flags.writeable = False
                object.__setattr__(self, name, array)

    def __repr__(self) -> str:
        return (
            f"<Inspection {self.verdict.value}: score {self.score:.4f} by {self.model} version "
            f"{self.version}, release {self.release[:_SHOWN_DIGITS]}>"
        )

    def judged_by(self, thresholds: Thresholds) -> Inspection:
        """Give the same answer with the verdict of other thresholds.

        Raises `ArgumentError` for what are no `Thresholds`.
        """
        if check_thresholds(thresholds) is None or thresholds == self.thresholds:
            return self  # in float32 the server may have judged a score at the very threshold
        return replace(self, thresholds=thresholds, verdict=thresholds.verdict(self.score))

    @property
    def area_percent(self) -> float:
        """How much of the image belongs to defects, in percent of the whole image.

        Raises `DiffusionADError` if the map was not asked for, as do all below that need it.
        """
        return 100 * float(np.mean(heat.defects(self._map(), self.pixel_threshold)))

    def anomaly_map_at(self, height: int, width: int) -> NDArray[np.float32]:
        """Stretch the map over an image of that size: (height, width) float32 in [0, 1].

        Raises `ArgumentError` for a size that no image has.
        """
        return heat.stretch_map(self._map(), *check_map_size(height, width))

    def regions(self) -> tuple[Region, ...]:
        """Find the connected areas at or above the pixel threshold, in pixels of the map.

        The worst, with the highest peak, comes first; areas that touch only at
        corners are one. See `regions_at` for the image's own pixels.
        """
        values = self._map()
        return find_regions(values, heat.defects(values, self.pixel_threshold))

    def regions_at(self, height: int, width: int) -> tuple[Region, ...]:
        """Find the same regions, in pixels of an image of that size.

        `regions_at(*inspection.size)` are those in the image that was
        inspected. Boxes are rounded outwards, areas to whole pixels; peaks and
        means are the map's. Raises `ArgumentError` for a size that no image has.
        """
        size = check_map_size(height, width)
        rows, columns = self._map().shape
        return tuple(scaled(region, (rows, columns), size) for region in self.regions())

    def overlay(
        self, image: images.ImageSource, *, color: images.Color = "rgb"
    ) -> NDArray[np.uint8]:
        """Draw the map and the outline of its defects over the image, at the image's own size.

        Give the image that was inspected, in any form that `inspect` takes; it
        is not kept, so that inspections of a stream need little memory. What
        comes back is RGB, (H, W, 3) uint8, in the colours of the heat maps of
        `diffusionad score`. Raises `ImageError` for an image that cannot be
        read, or of another size than the one that was inspected.
        """
        values = self._map()
        pixels = images.load(image, depth=self.depth, color=color)
        height, width = pixels.shape[:2]
        if self.size not in (None, (height, width)):
            raise ImageError(
                f"the image to draw over is {height} x {width} pixels (H x W), the one that was "
                f"inspected was {self.size[0]} x {self.size[1]}: give that one"
            )
        stretched = heat.stretch_map(values, *check_map_size(height, width))
        return heat.lay_over(pixels, stretched, self.pixel_threshold)

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON can hold of it: all but the map and the reconstruction.

        `regions` are in pixels of a picture of the height and width that
        `regions_size` names: the image's where `size` is known, else the map's.
        They and `area_percent` are None if the map was not asked for; a score
        that is no number is None.
        """
        document: dict[str, Any] = {
            "score": self.score if math.isfinite(self.score) else None,
            "verdict": self.verdict.value,
            "thresholds": asdict(self.thresholds),
            "pixel_threshold": self.pixel_threshold,
            "area_percent": None,
            "regions": None,
            "regions_size": None,
            "size": None if self.size is None else list(self.size),
        }
        if self.anomaly_map is not None:
            height, width = self.size or self.anomaly_map.shape
            regions = self.regions_at(height, width)
            document["area_percent"] = self.area_percent
            document["regions"] = [asdict(region) for region in regions]
            document["regions_size"] = [height, width]
        names = ("model", "version", "release", "roi", "server", "request_id")
        document |= {name: getattr(self, name) for name in names}
        document["timings"] = asdict(self.timings)
        return document

    def _map(self) -> NDArray[np.float32]:
        if self.anomaly_map is None:
            raise DiffusionADError(
                "this inspection has no anomaly map; ask for one with inspect(anomaly_map=True)"
            )
        return self.anomaly_map
