"""The JSON document that travels with a release: in its bundle, then in the ensemble's parameters.

It is schema-versioned. A client refuses a version it does not know instead of
guessing at thresholds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from enum import Enum
from numbers import Real
from typing import Any, get_args, get_origin, get_type_hints

from diffusionad_client.contract import CONTRACTS, FULL_DEPTH, NETWORK_STEPS, RESIZE, check_category
from diffusionad_client.errors import ArgumentError, CategoryNameError, MetadataError, shown
from diffusionad_client.pixels import DEPTHS

SCHEMA_VERSION = 2
# Documents of contract 1 are written as they always were, so that older clients read them.
_WITHOUT_CONTRACT = 1

# The float32 above 1: what calibration gives if a good part's own score is 1.
_NO_SCORE_REACHES = 1 + 2**-23  # nor a pixel

# How the warning of a calibration begins whose thresholds were changed since.
SET_BY_HAND = "thresholds set by hand"

_RELEASE_DIGITS = 12  # of the digest that names a release


class Precision(str, Enum):
    """What the networks of a release compute in. Inputs and outputs are the contract's in any."""

    FP32 = "fp32"
    FP16 = "fp16"  # for GPUs
    INT8 = "int8"  # for CPUs

    def __str__(self) -> str:
        return self.value


class Verdict(str, Enum):
    """What the line does with the part."""

    OK = "OK"
    REVIEW = "REVIEW"
    NG = "NG"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Thresholds:
    """OK if score < accept; NG if score >= reject; REVIEW between. Both lie in [0, 1].

    Raises `MetadataError` for any others.
    """

    accept: float
    reject: float

    def __post_init__(self) -> None:
        for name, value in (("accept", self.accept), ("reject", self.reject)):
            if not 0 <= self._keep(name, value) <= _NO_SCORE_REACHES:
                raise MetadataError(
                    f"the {name} threshold must lie in [0, 1], as scores do, not {shown(value)}"
                )
        self._check_order()

    @classmethod
    def as_stored(cls, accept: float, reject: float) -> Thresholds:
        """Take those of a release or of results as they are, though they lie outside [0, 1].

        They could once be set to anything, and what was published then is still served.
        """
        thresholds = object.__new__(cls)
        object.__setattr__(thresholds, "accept", accept)
        object.__setattr__(thresholds, "reject", reject)
        thresholds._keep("accept", accept)
        thresholds._keep("reject", reject)
        thresholds._check_order()
        return thresholds

    def _keep(self, name: str, value: float) -> float:
        """Check that a threshold is a finite number, and keep it as Python's own."""
        number = _float(value)
        if number is None or not math.isfinite(number):
            raise MetadataError(
                f"the {name} threshold must be a number in [0, 1], not {shown(value)}"
            )
        object.__setattr__(self, name, number)
        return number

    def _check_order(self) -> None:
        if self.accept > self.reject:
            raise MetadataError(
                f"the accept threshold ({self.accept}) lies above the reject threshold "
                f"({self.reject}); give accept <= reject"
            )

    def with_changes(self, *, accept: float | None, reject: float | None) -> Thresholds:
        """Give these thresholds, with those replaced that are not None."""
        if accept is None and reject is None:
            return self
        return Thresholds(
            accept=self.accept if accept is None else accept,
            reject=self.reject if reject is None else reject,
        )

    def verdict(self, score: float) -> Verdict:
        """Judge a score. A score that is not a number is never OK: it goes to REVIEW."""
        if _float(score) is None:
            raise ArgumentError(f"a score is a number, not {shown(score)}")
        if math.isnan(score):
            return Verdict.REVIEW
        if score >= self.reject:
            return Verdict.NG
        return Verdict.OK if score < self.accept else Verdict.REVIEW


@dataclass(frozen=True)
class Calibration:
    """What the thresholds were set to achieve, and on how many images."""

    good_images: int  # good images whose scores gave the quantiles, none of them trained on
    false_reject_rate: float  # share of good parts allowed to be NG
    review_rate: float  # share of good parts allowed to be REVIEW or NG
    false_reject_bound: float | None = None  # the true rate lies below, with 95 % confidence
    defective_images: int = 0  # 0: good images alone set the thresholds
    miss_rate: float | None = None  # share of defective parts allowed to be OK
    miss_bound: float | None = None  # as for false_reject_bound
    warning: str | None = None  # set when there were too few images for the rates asked for

    @property
    def is_overruled(self) -> bool:
        """Whether thresholds were set by hand since, so that the rates are not theirs."""
        return self.warning is not None and self.warning.startswith(SET_BY_HAND)


@dataclass(frozen=True)
class TrainingSummary:
    """Where the weights came from."""

    images: int  # good images trained on
    steps: int  # optimiser steps
    seed: int
    data_digest: str  # SHA-256 over relative paths and contents of the training images


@dataclass(frozen=True)
class Agreement:
    """How far a lower precision judges real images as float32 does. See `agreement`."""

    images: int
    anomalous: int  # of those, with a synthetic anomaly
    spearman: float  # rank correlation of the scores
    verdict_flips: float  # share of the images with another verdict
    auroc_loss: float  # float32's area under the ROC curve, less this precision's; 0.01 is a point


@dataclass(frozen=True)
class GateRecord:
    """What `release add` measured on a real server before it published the release."""

    references: int  # images with a known answer
    score_difference: float  # the largest, of the served scores from the known ones
    score_tolerance: float
    map_difference: float  # the largest, of any pixel
    map_tolerance: float
    server: str  # such as "triton 2.51.0"
    onnxruntime: str  # version
    agreement: Agreement | None = None  # of the served scores; None for float32


@dataclass(frozen=True)
class ReleaseMetadata:
    """Everything a client, a gate or an auditor needs to know of one release."""

    category: str
    release: str  # see `release_digest`
    preset: str
    size: int  # pixels; images are square
    thresholds: Thresholds
    pixel_threshold: float  # map values at or above it belong to a defect
    calibration: Calibration
    training: TrainingSummary
    digests: dict[str, str]  # step -> SHA-256 of its ONNX file
    metrics: dict[str, float | None] = field(default_factory=dict)  # measured at export
    precision: Precision = Precision.FP32
    agreement: Agreement | None = None  # measured at export; None for float32
    speedup: float | None = None  # over float32, on the CPU that exported; None for float32
    roi: str | None = None  # see `roi.digest`; None if the whole image is inspected
    gate: GateRecord | None = None  # None in a bundle, and in releases published without one
    resize: str = RESIZE
    # Bits of a grey image's pixels, where they are more than 8 and the file does not say how many.
    depth: int = FULL_DEPTH
    contract: int = 1  # see contract.CONTRACTS; a bundle's is that of its graphs' tensors

    def __post_init__(self) -> None:
        check_category(self.category)
        if self.size < 1:
            raise MetadataError(f"the size must be a positive number of pixels, not {self.size}")
        if not math.isfinite(self.pixel_threshold):
            raise MetadataError(f"pixel_threshold must be finite, not {self.pixel_threshold}")
        if self.depth not in DEPTHS:
            raise MetadataError(
                f"the depth must lie in {DEPTHS.start} to {DEPTHS.stop - 1} bits, not {self.depth}"
            )
        steps = [step.value for step in NETWORK_STEPS]
        if sorted(self.digests) != sorted(steps):
            raise MetadataError(f"digests must name the steps {steps}, not {sorted(self.digests)}")
        if self.contract not in CONTRACTS:
            raise MetadataError(
                f"the release is of contract {self.contract}, this version knows "
                f"{', '.join(map(str, CONTRACTS))}; install one that matches the release"
            )
        if self.precision is not Precision.FP32 and self.agreement is None:
            raise MetadataError(
                f"nothing says how far {self.precision} agrees with fp32: no `agreement`; "
                "export the release again"
            )

    def as_exported(self) -> ReleaseMetadata:
        """Leave out what is measured anew whenever a run is exported or released."""
        return dataclasses.replace(self, speedup=None, gate=None)

    def changed(self, **changes: Any) -> ReleaseMetadata:
        """Give these with some fields replaced, named anew by what they then say."""
        pixel = changes.get("pixel_threshold", self.pixel_threshold)
        if pixel != self.pixel_threshold and not 0 <= pixel <= _NO_SCORE_REACHES:
            raise MetadataError(
                f"the pixel threshold must lie in [0, 1], as the pixels of a map do, not {pixel}"
            )
        metadata = dataclasses.replace(self, **changes)
        name = release_digest(
            category=metadata.category,
            digests=metadata.digests,
            thresholds=metadata.thresholds,
            pixel_threshold=metadata.pixel_threshold,
            resize=metadata.resize,
            depth=metadata.depth,
        )
        return dataclasses.replace(metadata, release=name)

    def to_document(self) -> dict[str, Any]:
        """Give the document as JSON has it."""
        document = {**dataclasses.asdict(self), "schema_version": SCHEMA_VERSION}
        if self.depth == FULL_DEPTH:  # said only where it matters, so that others stay as they were
            del document["depth"]
        if self.contract == 1:
            del document["contract"]
            document["schema_version"] = _WITHOUT_CONTRACT
        return document

    def to_json(self) -> str:
        """Render the document: sorted keys, so that equal releases are equal bytes."""
        return json.dumps(self.to_document(), indent=2, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ReleaseMetadata:
        """Read a document. Raises `MetadataError` if it is malformed or of another schema."""
        try:
            document = json.loads(text)
        except (TypeError, ValueError, RecursionError) as exc:
            raise MetadataError(f"the release metadata is not JSON: {exc}") from exc
        if not isinstance(document, dict):
            raise MetadataError("the release metadata is not a JSON object")
        version = document.pop("schema_version", None)
        if version not in (_WITHOUT_CONTRACT, SCHEMA_VERSION):
            raise MetadataError(
                f"the release metadata has schema {version!r}, this client understands "
                f"{_WITHOUT_CONTRACT} and {SCHEMA_VERSION}; install a diffusionad-client that "
                "matches the release"
            )
        try:
            metadata: ReleaseMetadata = _read(cls, document, "metadata")
        except CategoryNameError as exc:
            raise MetadataError(f"metadata.category: {exc}") from exc
        return metadata


def release_digest(
    *,
    category: str,
    digests: dict[str, str],
    thresholds: Thresholds,
    pixel_threshold: float,
    resize: str = RESIZE,
    depth: int = FULL_DEPTH,
) -> str:
    """Name a release by everything that its answers depend on."""
    parts = [category, resize, digests, dataclasses.asdict(thresholds), pixel_threshold]
    parts += [] if depth == FULL_DEPTH else [depth]  # so that earlier releases keep their names
    content = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:_RELEASE_DIGITS]


def _float(value: Any) -> float | None:
    """Give a number as a float; None for what is none, or for one that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _read(hint: Any, value: Any, where: str) -> Any:
    """Turn parsed JSON into what the annotation `hint` promises, or say where it is not that."""
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, value, where)
    options = get_args(hint)
    if get_origin(hint) is dict:
        if isinstance(value, dict):
            return {key: _read(options[1], item, f"{where}.{key}") for key, item in value.items()}
    elif type(None) in options:
        (inner,) = (option for option in options if option is not type(None))
        return None if value is None else _read(inner, value, where)
    elif issubclass(hint, Enum):
        if value in (choices := [member.value for member in hint]):
            return hint(value)
        raise MetadataError(f"{where}: expected one of {', '.join(choices)}, not {shown(value)}")
    elif hint is float:
        if type(value) in (int, float):  # bool is an int to isinstance
            if (number := _float(value)) is None:
                raise MetadataError(f"{where}: {shown(value)} is too large")
            return number
    elif type(value) is hint:
        return value
    expected = "object" if get_origin(hint) is dict else hint.__name__
    raise MetadataError(f"{where}: expected {expected}, not {shown(value)}")


def _read_dataclass(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise MetadataError(f"{where}: expected an object, not {shown(value)}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(value) - set(fields))
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in value
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        raise MetadataError(f"{where}: unknown fields {unknown}, missing fields {missing}")
    hints = get_type_hints(cls)
    parts = {name: _read(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    return Thresholds.as_stored(**parts) if cls is Thresholds else cls(**parts)
