"""A category as a server serves it, and what it answers to an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from diffusionad_client import contract, images
from diffusionad_client.artifacts.metadata import (
    Calibration,
    ReleaseMetadata,
    Thresholds,
    TrainingSummary,
    Verdict,
)
from diffusionad_client.contract import FULL_DEPTH, NEWEST

Picture = NDArray[np.uint8]

_MOST_AT_ONCE = 8


@dataclass(eq=False)
class FakeCategory:
    """A category. What is changed while it is served holds from the next request on.

    `score` is a number of [0, 1], or a function of the image, (S, S, 3) uint8
    RGB as it arrives. The map, (S, S) float32 in [0, 1], is the score
    everywhere unless it is given; the reconstruction, (S, S, 3) uint8, is the
    image itself.
    """

    name: str = "screw"
    score: float | Callable[[Picture], float] = 0.0
    anomaly_map: Callable[[Picture], NDArray[np.float32]] | None = None
    reconstruction: Callable[[Picture], Picture] | None = None
    size: int = 256
    thresholds: Thresholds = field(default_factory=lambda: Thresholds(accept=0.3, reject=0.6))
    pixel_threshold: float = 0.5
    version: str = "1"
    release: str = "a" * 64
    contract: int = NEWEST
    depth: int = FULL_DEPTH
    roi: str | None = None
    encoded: bool = True  # its encoded form is served too
    state: str = "READY"  # Triton's; empty: it was never loaded
    reason: str = ""  # why it is not ready

    def __post_init__(self) -> None:
        contract.check_category(self.name)

    @property
    def models(self) -> list[str]:
        """Name its models: the category, its encoded form, its steps."""
        steps = [
            contract.step_model(self.name, step, self.contract)
            for step in contract.CONTRACTS[self.contract]
        ]
        forms = [self.name, *([contract.encoded_model(self.name)] if self.encoded else [])]
        return [*forms, *steps]

    def metadata(self) -> ReleaseMetadata:
        """Give the release's metadata, as the configuration holds it."""
        return ReleaseMetadata(
            category=self.name,
            release=self.release,
            preset="edge",
            size=self.size,
            thresholds=self.thresholds,
            pixel_threshold=self.pixel_threshold,
            calibration=Calibration(good_images=40, false_reject_rate=0.01, review_rate=0.05),
            training=TrainingSummary(images=100, steps=1000, seed=0, data_digest="d" * 64),
            digests={step.value: "0" * 64 for step in contract.NETWORK_STEPS},
            metrics={},
            roi=self.roi,
            depth=self.depth,
            contract=self.contract,
        )

    def config(self, model: str) -> model_config_pb2.ModelConfig:
        """Give the configuration of the category or of its encoded form."""
        config = model_config_pb2.ModelConfig(name=model, max_batch_size=_MOST_AT_ONCE)
        form = contract.ensemble_signature if model == self.name else contract.encoded_signature
        signature = form(self.size, self.contract)
        for tensors, added in (
            (signature.inputs, config.input),
            (signature.outputs, config.output),
        ):
            for spec in tensors:
                name = "STRING" if spec.dtype == "BYTES" else spec.dtype
                kind = model_config_pb2.DataType.Value(f"TYPE_{name}")
                added.add(name=spec.name, data_type=kind, dims=spec.dims)
        for step in self.models[-len(contract.CONTRACTS[self.contract]) :]:
            config.ensemble_scheduling.step.add(model_name=step, model_version=int(self.version))
        config.parameters[contract.METADATA_PARAMETER].string_value = self.metadata().to_json()
        return config

    def answer(self, batch: Any, outputs: list[str]) -> dict[str, NDArray[Any]]:
        """Give the named outputs of images, (N, S, S, 3) uint8 or (N, 1) of files."""
        needs_pixels = callable(self.score) or {contract.ANOMALY_MAP, contract.RECONSTRUCTION} & {
            *outputs
        }
        pictures = (
            [self._picture(image) for image in batch] if needs_pixels else [None] * len(batch)
        )
        rows = [self._row(picture, outputs) for picture in pictures]
        return {name: np.stack([row[name] for row in rows]) for name in outputs}

    def _picture(self, image: Any) -> Picture:
        if image.dtype == np.uint8:
            return image  # type: ignore[no-any-return]
        loaded = images.read_pixels(image[0])
        return images.resize(images.to_rgb(loaded, self.depth), self.size)

    def _row(self, picture: Any, outputs: list[str]) -> dict[str, NDArray[Any]]:
        score = np.float32(self.score(picture) if callable(self.score) else self.score)
        accept, reject = np.float32(self.thresholds.accept), np.float32(self.thresholds.reject)
        verdict = Verdict.REVIEW
        if score >= reject:
            verdict = Verdict.NG
        elif score < accept:
            verdict = Verdict.OK
        row: dict[str, Any] = {
            contract.SCORE: np.array([score]),
            contract.VERDICT: np.array([verdict.value.encode()], np.object_),
            contract.THRESHOLDS: np.array([accept, reject, self.pixel_threshold], np.float32),
            contract.RELEASE: np.array([self.release.encode()], np.object_),
        }
        if contract.ANOMALY_MAP in outputs:
            flat = np.full((self.size, self.size), score, np.float32)
            row[contract.ANOMALY_MAP] = self.anomaly_map(picture) if self.anomaly_map else flat
        if contract.RECONSTRUCTION in outputs:
            row[contract.RECONSTRUCTION] = (
                self.reconstruction(picture) if self.reconstruction else picture
            )
        return row
