"""A category as a server serves it, and what it answers to an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from diffusionad_client import contract, images
from diffusionad_client.artifacts.metadata import (
    Calibration,
    ReleaseMetadata,
    Thresholds,
    TrainingSummary,
    Verdict,
)
from diffusionad_client.contract import FULL_DEPTH, NEWEST
from diffusionad_client.errors import ArgumentError, ImageError, shown
from diffusionad_client.testing.faults import RefusedError
from diffusionad_client.testing.models import Model, category_models

Picture = NDArray[np.uint8]
Outputs = dict[str, NDArray[Any]]


@dataclass(eq=False)
class FakeCategory:
    """A category. What is changed while it is served holds from the next request on.

    `score` is a number, in a release of ours of [0, 1], or a function of the
    image, (S, S, 3) uint8 RGB as it arrived. So may be the map, (S, S) float32
    in [0, 1], which is the score everywhere by default, and the
    reconstruction, (S, S, 3) uint8, by default the image itself. Functions are
    called in the server's threads, several at once.

    `alter` changes what is sent: it is given the outputs by name, each with
    its leading batch dimension, and may replace, remove or reshape them.
    `alter_config` is given the `ModelConfig` message of a form of the category.
    Raises `CategoryNameError`, `ArgumentError` for a version that is no positive
    whole number, and `MetadataError` for what no release can say.
    """

    name: str = "screw"
    score: float | Callable[[Picture], float] = 0.0
    _: KW_ONLY
    anomaly_map: NDArray[np.float32] | Callable[[Picture], NDArray[np.float32]] | None = None
    reconstruction: Picture | Callable[[Picture], Picture] | None = None
    size: int = 256
    thresholds: Thresholds = field(default_factory=lambda: Thresholds(accept=0.3, reject=0.6))
    pixel_threshold: float = 0.5
    version: str = "1"
    networks: str = "1"  # their version; a change of thresholds makes no new one
    release: str = "a" * 64
    contract: int = NEWEST
    depth: int = FULL_DEPTH
    roi: str | None = None
    encoded: bool = True  # its encoded form is served too
    loaded: bool = True
    broken: str = ""  # why its segmentation cannot be loaded
    like: ReleaseMetadata | None = None  # what its metadata says besides
    alter: Callable[[Outputs], None] | None = None
    alter_config: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        contract.check_category(self.name)
        for version in (self.version, self.networks):
            if not version.isdecimal() or int(version) < 1:
                raise ArgumentError(f"a version is a text such as '1', not {shown(version)}")
        self.metadata()  # raises what is wrong before a server has to answer it
        self._states: dict[str, str] = {}  # of forms that were loaded or unloaded since

    @classmethod
    def of(cls, metadata: ReleaseMetadata, **more: Any) -> FakeCategory:
        """Make the category that a release's metadata describe; `more` are other fields."""
        said = {own: getattr(metadata, name) for own, name in _SAID.items()}
        return cls(**{**said, "like": metadata, **more})

    @property
    def forms(self) -> list[str]:
        """Name its ensembles: itself, and its encoded form if that is served."""
        encoded = [contract.encoded_model(self.name)] if self.encoded else []
        return [self.name, *encoded]

    @property
    def models(self) -> Mapping[str, Model]:
        """Give its models, by name."""
        return category_models(
            *(self.name, self.size, self.depth, self.contract),
            *(self.version, self.networks, self.encoded),
        )

    def metadata(self) -> ReleaseMetadata:
        """Give the release's metadata, as the configuration holds it."""
        like = self.like or ReleaseMetadata(
            category=self.name,
            release=self.release,
            preset="edge",
            size=self.size,
            thresholds=self.thresholds,
            pixel_threshold=self.pixel_threshold,
            calibration=Calibration(good_images=40, false_reject_rate=0.01, review_rate=0.05),
            training=TrainingSummary(images=100, steps=1000, seed=0, data_digest="d" * 64),
            digests={step.value: "0" * 64 for step in contract.NETWORK_STEPS},
        )
        said = {name: getattr(self, own) for own, name in _SAID.items()}
        return replace(like, **said)

    def promote(self, changes: dict[str, Any]) -> None:
        """Become another release: the next version, of another name unless `changes` give them.

        Raises `ArgumentError` for what is no field of a category.
        """
        fields = set(self.__dataclass_fields__) - {"name"}
        if unknown := sorted(set(changes) - fields):
            raise ArgumentError(f"a category has no {unknown[0]!r}; it has {sorted(fields)}")
        version = str(int(self.version) + 1)
        name = hashlib.sha256(f"{self.name} {version}".encode()).hexdigest()
        changed = {"version": version, "release": name, **changes}
        replace(self, **changed)  # raises what is wrong before anything is changed
        self.__dict__.update(changed)  # at once, for requests in other threads

    def state(self, form: str) -> str:
        """Give Triton's state of one of its forms; empty: never loaded."""
        return self._states.get(form, "READY" if self.loaded and not self.broken else "")

    def set_state(self, form: str, state: str) -> None:
        """Load or unload one of its forms."""
        self._states[form] = state

    def answer(self, batch: NDArray[Any], outputs: list[str]) -> Outputs:
        """Give the named outputs of images, (N, S, S, 3) uint8 or (N, 1) of files.

        Raises `RefusedError` for a file that cannot be decoded.
        """
        wanted = {*outputs}
        pixels = callable(self.score) or bool(
            {contract.ANOMALY_MAP, contract.RECONSTRUCTION} & wanted
        )
        pictures: list[Any] = [None] * len(batch)
        if batch.dtype != np.uint8:  # a file that is none is refused, whatever is asked for
            pictures = [self._decoded(number, file) for number, (file,) in enumerate(batch)]
        elif pixels:
            pictures = list(batch)
        rows = [self._row(picture, wanted) for picture in pictures]
        found = {name: np.stack([row[name] for row in rows]) for name in outputs}
        if self.alter is not None:
            self.alter(found)
        return found

    def _decoded(self, number: int, file: bytes) -> Picture:
        try:
            return images.resize(images.load(file, depth=self.depth), self.size)
        except ImageError as exc:
            form = contract.encoded_model(self.name)
            words = f"in ensemble '{form}', {contract.BAD_IMAGE} {number} of the request: {exc}"
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, words) from exc

    def _row(self, picture: Any, outputs: set[str]) -> Outputs:
        score = np.float32(_of(self.score, picture))
        limits = np.array(
            [self.thresholds.accept, self.thresholds.reject, self.pixel_threshold], np.float32
        )
        row: Outputs = {
            contract.SCORE: np.array([score]),
            contract.VERDICT: _text(_verdict(score, limits).value),
            contract.THRESHOLDS: limits,
            contract.RELEASE: _text(self.release),
        }
        if contract.ANOMALY_MAP in outputs:
            everywhere = np.full((self.size, self.size), score, np.float32)
            given = everywhere if self.anomaly_map is None else _of(self.anomaly_map, picture)
            row[contract.ANOMALY_MAP] = np.asarray(given, np.float32)
        if contract.RECONSTRUCTION in outputs:
            drawn = picture if self.reconstruction is None else _of(self.reconstruction, picture)
            row[contract.RECONSTRUCTION] = np.asarray(drawn, np.uint8)
        return row


# Fields of a category that its metadata say, and what they call them.
_SAID = {
    "name": "category",
    "size": "size",
    "thresholds": "thresholds",
    "pixel_threshold": "pixel_threshold",
    "release": "release",
    "contract": "contract",
    "depth": "depth",
    "roi": "roi",
}


def _of(given: Any, picture: Any) -> Any:
    """Give a value, or what a function makes of an image."""
    return given(picture) if callable(given) else given


def _verdict(score: np.float32, limits: NDArray[np.float32]) -> Verdict:
    """Judge as the judgement's graph does, in float32: what is no number is for REVIEW."""
    if score >= limits[1]:
        return Verdict.NG
    return Verdict.OK if score < limits[0] else Verdict.REVIEW


def _text(text: str) -> NDArray[np.object_]:
    return np.array([text.encode()], np.object_)
