"""The JSON document that travels with a release: in its bundle, then in the ensemble's parameters.

It is schema-versioned. A client refuses a version it does not know instead of
guessing at thresholds.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from diffusionad_client.contract import RESIZE, Step, check_category
from diffusionad_client.errors import MetadataError

SCHEMA_VERSION = 1


class Verdict(str, Enum):
    """What the line does with the part."""

    OK = "OK"
    REVIEW = "REVIEW"
    NG = "NG"


@dataclass(frozen=True)
class Thresholds:
    """OK if score < accept; NG if score >= reject; REVIEW between. Scores lie in [0, 1]."""

    accept: float
    reject: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.accept) and math.isfinite(self.reject)):
            raise MetadataError(f"thresholds must be finite numbers, not {self}")
        if self.accept > self.reject:
            raise MetadataError(
                f"the accept threshold ({self.accept}) lies above the reject threshold "
                f"({self.reject}); give accept <= reject"
            )

    def verdict(self, score: float) -> Verdict:
        """Judge a score. A score that is not a number is never OK: it goes to REVIEW."""
        if math.isnan(score):
            return Verdict.REVIEW
        if score >= self.reject:
            return Verdict.NG
        return Verdict.OK if score < self.accept else Verdict.REVIEW


@dataclass(frozen=True)
class Calibration:
    """What the thresholds were set to achieve, and on how many images."""

    good_images: int  # held-out good images whose scores gave the quantiles
    false_reject_rate: float  # share of good parts allowed to be NG
    review_rate: float  # share of good parts allowed to be REVIEW or NG
    warning: str | None = None  # set when there were too few images for the rates asked for


@dataclass(frozen=True)
class TrainingSummary:
    """Where the weights came from."""

    images: int  # good images trained on
    steps: int  # optimiser steps
    seed: int
    data_digest: str  # SHA-256 over relative paths and contents of the training images


@dataclass(frozen=True)
class ReleaseMetadata:
    """Everything a client, a gate or an auditor needs to know of one release."""

    category: str
    release: str  # digest that names the release: same graphs and thresholds, same name
    preset: str
    size: int  # pixels; images are square
    thresholds: Thresholds
    pixel_threshold: float  # map values at or above it belong to a defect
    calibration: Calibration
    training: TrainingSummary
    digests: dict[str, str]  # step -> SHA-256 of its ONNX file
    metrics: dict[str, float | None] = field(default_factory=dict)  # measured at export
    resize: str = RESIZE
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_category(self.category)
        if set(self.digests) != {step.value for step in Step}:
            raise MetadataError(
                f"digests must name the steps {[s.value for s in Step]}, not {sorted(self.digests)}"
            )

    def to_json(self) -> str:
        """Render the document: sorted keys, so that equal releases are equal bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ReleaseMetadata:
        """Read a document. Raises `MetadataError` if it is malformed or of another schema."""
        try:
            document = json.loads(text)
        except json.JSONDecodeError as exc:
            raise MetadataError(f"the release metadata is not JSON: {exc}") from exc
        if not isinstance(document, dict):
            raise MetadataError("the release metadata is not a JSON object")
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise MetadataError(
                f"the release metadata has schema {version!r}, this client understands "
                f"{SCHEMA_VERSION}; install a diffusionad-client that matches the release"
            )
        return _build(cls, document, "metadata")


_NESTED: dict[str, type[Any]] = {
    "thresholds": Thresholds,
    "calibration": Calibration,
    "training": TrainingSummary,
}


def _build(cls: type[Any], document: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(document) - set(known))
    missing = sorted(
        name
        for name, f in known.items()
        if name not in document
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        raise MetadataError(f"{where}: unknown fields {unknown}, missing fields {missing}")
    values = {
        name: _build(_NESTED[name], value, f"{where}.{name}")
        if name in _NESTED and isinstance(value, dict)
        else value
        for name, value in document.items()
    }
    return cls(**values)
