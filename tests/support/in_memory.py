"""A transport without a network: a model that finds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusionad_client import ReleaseMetadata, contract
from diffusionad_client.sdk.transports.base import About, Answer, IndexEntry, ModelConfig


class InMemory:
    """A server that finds nothing, in this process."""

    def __init__(self, metadata: ReleaseMetadata) -> None:
        self.metadata = metadata
        self.closed = False

    def ready(self, *, timeout: float) -> bool:
        return True

    def about(self, *, timeout: float) -> About:
        return About(server="memory", version="0")

    def model_ready(self, model: str, *, timeout: float) -> bool:
        return True

    def index(self, *, timeout: float) -> list[IndexEntry]:
        return [IndexEntry(self.metadata.category, "7", ready=True)]

    def versions(self, model: str, *, timeout: float) -> list[str]:
        return ["7"]

    def config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
        return ModelConfig(
            batched=True,
            signature=contract.ensemble_signature(self.metadata.size, self.metadata.contract),
            parameters={contract.METADATA_PARAMETER: self.metadata.to_json()},
        )

    def infer(self, model: str, batch: Any, outputs: Sequence[str], **options: Any) -> Answer:
        specs = contract.ensemble_signature(self.metadata.size, 1).outputs
        tensors = {
            spec.name: np.zeros((1, *spec.dims), np.float32 if spec.dtype == "FP32" else np.uint8)
            for spec in specs
        }
        return Answer("7", {name: tensors[name] for name in outputs})

    def load(self, model: str, *, timeout: float) -> None:
        pass

    def unload(self, model: str, *, timeout: float) -> None:
        pass

    def close(self) -> None:
        self.closed = True
