"""The one place that speaks to Triton over gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from diffusionad_client.contract import IMAGE, IMAGE_BYTES, Priority, Signature, TensorSpec
from diffusionad_client.errors import DiffusionADError
from diffusionad_client.sdk.connection import Connection
from diffusionad_client.sdk.credentials import Credentials, credentials_of
from diffusionad_client.sdk.transports.base import Answer, Batch, Health, IndexEntry, ModelConfig
from diffusionad_client.sdk.transports.channel import channel_options
from diffusionad_client.sdk.transports.errors import (
    load_errors,
    translate,
    without_trace,
)
from diffusionad_client.sdk.transports.tls_failures import ask_why, may_be_tls


class GrpcTransport:
    """A `Transport` over one gRPC channel.

    Many threads may share it: of tritonclient only unary calls are used, which
    hold no state of their own but the channel. The channel is made anew when
    the files of its `credentials` have changed; calls under way end on the old one. Without
    `credentials`, the server is reached in plain text; `admin_key` is sent with
    the calls on the server's repository alone.
    """

    def __init__(
        self, url: str, *, admin_key: str | None = None, credentials: Credentials | None = None
    ) -> None:
        if credentials is None:
            credentials = credentials_of(Connection(url, admin_key=admin_key))
        self._url = url
        self._credentials = credentials
        self._closed = False
        self._answered = False  # on this channel
        self._stamp = credentials.stamp()
        self._channel = self._dial()

    def health(self, *, timeout: float) -> Health:
        """Ask whether the server is ready."""
        with self._our_errors(timeout):
            ready = self._triton.is_server_ready(client_timeout=timeout, headers=self._headers)
            about = self._triton.get_server_metadata(client_timeout=timeout, headers=self._headers)
        return Health(ready=bool(ready), server=about.name, version=about.version)

    def index(self, *, timeout: float) -> Sequence[IndexEntry]:
        """List the server's repository."""
        with self._our_errors(timeout):
            answer = self._triton.get_model_repository_index(
                headers=self._admin_headers, client_timeout=timeout
            )
        return [
            IndexEntry(m.name, m.version, m.state == "READY", m.state, without_trace(m.reason))
            for m in answer.models
        ]

    def versions(self, model: str, *, timeout: float) -> Sequence[str]:
        """List the versions of a model that are served."""
        with self._our_errors(timeout, model):
            answer = self._triton.get_model_metadata(
                model, client_timeout=timeout, headers=self._headers
            )
        return list(answer.versions)

    def config(self, model: str, version: str, *, timeout: float) -> ModelConfig:
        """Read the configuration of one version of a model."""
        with self._our_errors(timeout, model):
            answer = self._triton.get_model_config(
                model, version, client_timeout=timeout, headers=self._headers
            )
        config = answer.config
        return ModelConfig(
            batched=config.max_batch_size > 0,
            signature=Signature(_specs(config.input), _specs(config.output)),
            parameters={key: value.string_value for key, value in config.parameters.items()},
            steps={step.model_name: step.model_version for step in config.ensemble_scheduling.step},
        )

    def infer(
        self,
        model: str,
        batch: Batch,
        outputs: Sequence[str],
        *,
        priority: Priority,
        timeout: float,
    ) -> Answer:
        """Run the newest version of a model on a batch for the named outputs.

        The server is told of the timeout: what still waits in its queue by then
        nobody waits for any more, and it is dropped there.
        """
        name, kind = (IMAGE, "UINT8") if batch.dtype == np.uint8 else (IMAGE_BYTES, "BYTES")
        tensor = triton.InferInput(name, batch.shape, kind).set_data_from_numpy(batch)
        with self._our_errors(timeout, model):
            result = self._triton.infer(
                model,
                [tensor],
                outputs=[triton.InferRequestedOutput(name) for name in outputs],
                priority=int(priority),
                timeout=max(1, int(timeout * 1e6)),  # in us; 0 would mean none
                client_timeout=timeout,
                headers=self._headers,
            )
        arrays = {name: result.as_numpy(name) for name in outputs}
        return Answer(
            version=result.get_response().model_version,
            outputs={name: array for name, array in arrays.items() if array is not None},
        )

    def load(self, model: str, *, timeout: float) -> None:
        """Load a model, or load it anew as it stands in the server's repository now.

        What it is made of is loaded first. Raises `ModelLoadError` with the
        server's reason; what was loaded before is then served on.
        """
        with self._our_errors(timeout, model), load_errors(f"{model} on {self._url}"):
            self._triton.load_model(model, headers=self._admin_headers, client_timeout=timeout)

    def unload(self, model: str, *, timeout: float) -> None:
        """Unload a model and those that it alone is made of; answers when that has begun."""
        with self._our_errors(timeout, model), load_errors(f"{model} on {self._url}"):
            self._triton.unload_model(
                model, headers=self._admin_headers, unload_dependents=True, client_timeout=timeout
            )

    def close(self) -> None:
        """Let go of the connection; calls under way end with an error."""
        self._closed = True
        self._channel.close()

    @property
    def _triton(self) -> Any:
        """The channel of the credentials as they are now.

        An old one is closed by tritonclient when the last call under way lets go of it.
        """
        stamp = self._credentials.stamp()
        if stamp != self._stamp and not self._closed:
            self._stamp, self._answered = stamp, False
            self._channel = self._dial()
        return self._channel

    def _dial(self) -> Any:
        return triton.InferenceServerClient(
            self._url,
            creds=self._credentials.channel_credentials(),
            channel_args=channel_options(self._url),
        )

    @property
    def _headers(self) -> dict[str, str]:
        return dict(self._credentials.metadata())

    @property
    def _admin_headers(self) -> dict[str, str]:
        return {**self._headers, **dict(self._credentials.admin_metadata())}

    @contextmanager
    def _our_errors(self, timeout: float, model: str | None = None) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
            self._answered = True
        except InferenceServerException as exc:
            if self._closed:  # it was under way, and was cancelled
                raise self._closed_error() from exc
            about = self._url if model is None else f"{model} on {self._url}"
            error = translate(exc.status(), exc.message(), about, timeout)
            if not self._answered and may_be_tls(exc.message()):
                left = started + timeout - time.monotonic()
                why = ask_why(exc.message(), self._url, self._credentials, about, left)
                error = why or error
            raise error from exc
        except ValueError as exc:  # what gRPC raises for a closed channel
            if not self._closed:
                raise
            raise self._closed_error() from exc

    def _closed_error(self) -> DiffusionADError:
        return DiffusionADError(f"{self._url}: this client is closed; make a new one")


def _specs(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(t.name, _data_type(t.data_type), tuple(t.dims)) for t in tensors)


def _data_type(number: int) -> str:
    name: str = model_config_pb2.DataType.Name(number)
    return "BYTES" if name == "TYPE_STRING" else name.removeprefix("TYPE_")
