"""What the user chose for a run of scoring."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from diffusionad_client.pages.pictures import PictureFormat
from diffusionad_client.scoring.drawing import Drawing, Heatmaps
from diffusionad_client.scoring.limits import FailureLimit
from diffusionad_client.scoring.path_fields import FieldRule
from diffusionad_client.scoring.score_one import Recipe
from diffusionad_client.scoring.tables import Format
from diffusionad_client.sdk.arguments import Decode


@dataclass(frozen=True)
class Cluster:
    """The machines of a run that is done on several: those of a Ray cluster."""

    address: str | None = None  # of its head; None: one is started on this machine
    workers: int | None = None  # None: one for each CPU


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user chose for a run."""

    output: Path
    model: str | None = None  # None: the server's only category
    accept: float | None = None  # None: the release's
    reject: float | None = None
    heatmaps: Heatmaps = Heatmaps.ALL
    picture_format: PictureFormat = PictureFormat.PNG  # of the heat maps
    save_maps: bool = False
    formats: Collection[Format] = (Format.JSONL, Format.CSV)
    fields: FieldRule = field(default_factory=FieldRule)
    overwrite: bool = False
    retry_failed: bool = False
    concurrency: int | None = 4  # None: as many as make the run faster
    decode: Decode = "client"  # who decodes the images; to the same scores
    cluster: Cluster | None = None  # None: this process does it all
    patience: float = 10.0  # how long the server may be away, in seconds
    max_failures: FailureLimit = field(default_factory=FailureLimit)

    def recipe(self, depth: int) -> Recipe:
        """What of it concerns each image, of a product whose images have that depth."""
        drawing = Drawing(
            heatmaps=self.heatmaps, maps=self.save_maps, heatmap_format=self.picture_format
        )
        return Recipe(
            accept=self.accept,
            reject=self.reject,
            depth=depth,
            drawing=drawing,
            decode=self.decode,
        )

    @property
    def digest(self) -> str:
        """Name what of it changes a result, beside the thresholds: which pictures there are."""
        document = {
            "heatmaps": self.heatmaps.value,
            "format": None if self.heatmaps is Heatmaps.NONE else self.picture_format.value,
            "maps": self.save_maps,
        }
        return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:16]
