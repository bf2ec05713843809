"""The seam to a server: all that the client needs of one.

Tests and other ways of reaching a model put their own object in the place of
`GrpcTransport` (grpc.py) or `AioTransport` (aio.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.contract import Priority, Signature

# Images, (N, S, S, 3) uint8, or their files, (N, 1) of bytes objects: `numpy.bytes_` would lose
# the zeros at the end of a file.
Batch = NDArray[np.uint8] | NDArray[np.object_]


Headers = Sequence[tuple[str, str]]  # gRPC metadata


@dataclass(frozen=True)
class About:
    """What a server says of itself."""

    server: str
    version: str


@dataclass(frozen=True)
class IndexEntry:
    """One version of one model in a server's repository."""

    model: str
    version: str  # empty if the model was never loaded
    ready: bool
    state: str = ""  # Triton's: READY, LOADING, UNLOADING, UNAVAILABLE; empty if never loaded
    reason: str = ""  # why it is not available


@dataclass(frozen=True)
class ModelConfig:
    """What a client reads from a served model's configuration."""

    batched: bool
    signature: Signature
    parameters: Mapping[str, str]
    steps: Mapping[str, int] = field(default_factory=dict)  # of an ensemble: model -> its version


@dataclass(frozen=True)
class Answer:
    """A model's outputs, with their leading batch dimension, and the version that gave them."""

    version: str
    outputs: Mapping[str, NDArray[Any]]


class Transport(Protocol):
    """All that a client needs of a server. Methods raise `DiffusionADError`; timeouts are in s.

    Those of a transport for `AsyncClient` return awaitables of what stands here.
    """

    def ready(self, *, timeout: float) -> bool:
        """Ask whether the server and all of its models are ready."""

    def about(self, *, timeout: float) -> About:
        """Ask for the server's name and version."""

    def model_ready(self, model: str, *, timeout: float) -> bool:
        """Ask whether a version of a model is ready."""

    def index(self, *, timeout: float) -> Sequence[IndexEntry]:
        """List the server's repository."""

    def versions(self, model: str, *, timeout: float) -> Sequence[str]:
        """List the versions of a model that are served."""

    def config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
        """Read the configuration of one version of a model."""

    def infer(
        self,
        model: str,
        batch: Batch,
        outputs: Sequence[str],
        *,
        priority: Priority,
        timeout: float,
        request_id: str = "",
        headers: Headers = (),
    ) -> Answer:
        """Run the newest version of a model on a batch for the named outputs."""

    def load(self, model: str, *, timeout: float) -> None:
        """Load a model, or load it anew as it stands in the server's repository now."""

    def unload(self, model: str, *, timeout: float) -> None:
        """Unload a model and those that it alone is made of."""

    def close(self) -> None:
        """Let go of the connection; calls under way end with an error."""
