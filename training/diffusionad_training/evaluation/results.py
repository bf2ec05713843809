"""The figures of an evaluation, and the JSON that keeps them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from diffusionad_training.errors import DataError

METRICS = (
    "image_auroc",
    "image_average_precision",
    "image_f1_max",
    "pixel_auroc",
    "pixel_average_precision",
    "pro",
)


@dataclass(frozen=True)
class ImageScore:
    """One line of the evaluation: which image, of which class, scored what."""

    path: str  # relative to the data folder
    defect: str
    score: float
    outside: bool = False  # its defects lie outside the region of interest: it counts for nothing


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """Metrics in [0, 1] of one class of defects against all good images; None where undefined."""

    images: int  # that count
    without_mask: int  # of those, not in the pixel metrics
    outside: int  # further images, see ImageScore
    image_auroc: float | None
    image_average_precision: float | None
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics in [0, 1]; None where the data cannot define one."""

    detector: str  # what was measured: the digest of a run's weights, or a served release
    roi: str | None  # digest of the region of interest; None: every pixel counts
    image_auroc: float | None
    image_average_precision: float | None
    image_f1_max: float | None
    f1_threshold: float | None  # at which F1 is largest; of the test set, so no threshold to set
    pixel_auroc: float | None
    pixel_average_precision: float | None
    pro: float | None
    by_class: dict[str, ClassFigures]  # of the defects
    images: tuple[ImageScore, ...]
    seconds: float
    remarks: tuple[str, ...] = ()  # for people: why a figure is undefined, what masks are odd

    @property
    def metrics(self) -> dict[str, float | None]:
        """The overall metrics by name."""
        return {name: getattr(self, name) for name in METRICS}

    @property
    def without_mask(self) -> int:
        """Defective images without ground truth: not in the pixel metrics."""
        return sum(figures.without_mask for figures in self.by_class.values())

    @property
    def outside(self) -> int:
        """Defective images that count for nothing, see ImageScore."""
        return sum(figures.outside for figures in self.by_class.values())

    def to_json(self) -> str:
        """Render everything, the score of every image included."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)


@dataclass(frozen=True)
class Record:
    """What the metadata of a release takes from an evaluation."""

    detector: str
    roi: str | None
    metrics: dict[str, float | None]


def read_record(path: Path) -> Record:
    """Read the detector, the region and the metrics of an evaluation's JSON. Raises `DataError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        metrics = {name: document[name] for name in METRICS}
        return Record(document["detector"], document.get("roi"), metrics)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(f"{path}: not an evaluation by `diffusionad evaluate`: {exc!r}") from exc
