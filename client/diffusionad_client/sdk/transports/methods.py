"""Triton's methods as a client calls them, over any way of sending a message.

A sender waits for the response and returns what it means, or on an event loop
returns an awaitable of that: the methods are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tritonclient.grpc import service_pb2

from diffusionad_client.contract import Priority
from diffusionad_client.sdk.transports import messages
from diffusionad_client.sdk.transports.base import (
    About,
    Answer,
    Batch,
    Headers,
    IndexEntry,
    ModelConfig,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Message(Generic[T]):
    """One unary call, and what its response means."""

    method: str  # of Triton's GRPCInferenceService
    request: Any
    read: Callable[[Any], T]
    model: str | None = None  # that it is about; for messages
    of_repository: bool = False  # what an admin key opens
    loads: bool = False  # Triton has words of its own for what it cannot load
    headers: Headers = ()


class Methods(ABC):
    """A `Transport` but for how a message is sent."""

    @abstractmethod
    def _send(self, message: Message[T], timeout: float) -> T:
        """Send a message, and read its response within `timeout` s."""

    def ready(self, *, timeout: float) -> bool:
        """Ask whether the server and all of its models are ready."""
        request = service_pb2.ServerReadyRequest()
        return self._send(Message("ServerReady", request, lambda r: bool(r.ready)), timeout)

    def about(self, *, timeout: float) -> About:
        """Ask for the server's name and version."""
        request = service_pb2.ServerMetadataRequest()
        return self._send(Message("ServerMetadata", request, messages.about), timeout)

    def model_ready(self, model: str, *, timeout: float) -> bool:
        """Ask whether a version of a model is ready."""
        request = service_pb2.ModelReadyRequest(name=model)
        return self._send(Message("ModelReady", request, lambda r: bool(r.ready), model), timeout)

    def index(self, *, timeout: float) -> Sequence[IndexEntry]:
        """List the server's repository."""
        request = service_pb2.RepositoryIndexRequest()
        message = Message("RepositoryIndex", request, messages.index_entries, of_repository=True)
        return self._send(message, timeout)

    def versions(self, model: str, *, timeout: float) -> Sequence[str]:
        """List the versions of a model that are served."""
        request = service_pb2.ModelMetadataRequest(name=model)
        return self._send(
            Message("ModelMetadata", request, lambda r: [*r.versions], model), timeout
        )

    def config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
        """Read the configuration of one version of a model."""
        request = service_pb2.ModelConfigRequest(name=model, version=version)
        return self._send(Message("ModelConfig", request, messages.model_config, model), timeout)

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
        request = messages.infer_request(
            model, batch, outputs, priority=priority, timeout=timeout, request_id=request_id
        )
        message = Message("ModelInfer", request, messages.infer_answer, model, headers=headers)
        return self._send(message, timeout)

    def load(self, model: str, *, timeout: float) -> None:
        """Load a model, or load it anew as it stands in the server's repository now.

        What it is made of is loaded first. Raises `ModelLoadError` with the
        server's reason; what was loaded before is then served on.
        """
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        message = Message("RepositoryModelLoad", request, _nothing, model, True, True)
        return self._send(message, timeout)

    def unload(self, model: str, *, timeout: float) -> None:
        """Unload a model and those that it alone is made of; answers when that has begun."""
        request = messages.unload_request(model)
        message = Message("RepositoryModelUnload", request, _nothing, model, True, True)
        return self._send(message, timeout)


def _nothing(response: Any) -> None:
    return None
