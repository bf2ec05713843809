"""The SDK: one object that scores images against the categories of a Triton server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusionad_client import contract, images
from diffusionad_client.deadline import Deadline
from diffusionad_client.errors import ContractError, ModelNotFoundError, ServerUnavailableError
from diffusionad_client.inspection import Inspection, Timings
from diffusionad_client.metadata import Thresholds
from diffusionad_client.releases import Releases, ServedModel
from diffusionad_client.transport import Answer, GrpcTransport, Health, Transport


class Client:
    """A connection to one server. Threads may share it.

    `url` is the server's gRPC address, HOST:PORT. `model` names the category
    for calls that name none; without it the server must serve only one.
    `timeout` is in seconds and holds for all that one call asks of the server.
    `thresholds` override those of the release.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout: float = 30.0,
        thresholds: Thresholds | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._model = None if model is None else contract.check_category(model)
        self._timeout = timeout
        self._thresholds = thresholds
        self._deadline(None)  # refuses a timeout that makes no sense, now rather than later
        self._transport = GrpcTransport(url) if transport is None else transport
        self._releases = Releases(self._transport, url)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that other threads have under way end with an error."""
        self._transport.close()

    def inspect(
        self,
        image: images.ImageSource,
        *,
        model: str | None = None,
        anomaly_map: bool = True,
        reconstruction: bool = True,
        thresholds: Thresholds | None = None,
        timeout: float | None = None,
    ) -> Inspection:
        """Score one image: a path, its bytes, a PIL image or RGB (H, W, 3) uint8 of any size.

        Leave out the map or the reconstruction to save their transfer. Raises a
        `DiffusionADError`; look at its `retryable` before trying again.
        """
        started = time.perf_counter()
        pixels = images.load(image)
        decode_s = time.perf_counter() - started

        deadline = self._deadline(timeout)
        served = self._releases.newest(self._choose(model, deadline), deadline)

        started = time.perf_counter()
        square = images.resize(pixels, served.metadata.size)
        resize_s = time.perf_counter() - started

        outputs = [contract.SCORE]
        outputs += [contract.ANOMALY_MAP] if anomaly_map else []
        outputs += [contract.RECONSTRUCTION] if reconstruction else []
        started = time.perf_counter()
        answer = self._infer(served.model, square[np.newaxis], outputs, deadline)
        request_s = time.perf_counter() - started

        if answer.version != served.version:  # so that score and thresholds are of one release
            served = self._releases.of_version(served.model, answer.version, deadline)
        tensors = _of_one_image(answer, outputs, served)
        score = float(tensors[contract.SCORE][0])
        limits = thresholds or self._thresholds or served.metadata.thresholds
        return Inspection(
            score=score,
            verdict=limits.verdict(score),
            thresholds=limits,
            anomaly_map=tensors.get(contract.ANOMALY_MAP),
            reconstruction=tensors.get(contract.RECONSTRUCTION),
            pixel_threshold=served.metadata.pixel_threshold,
            model=served.model,
            version=served.version,
            release=served.metadata.release,
            timings=Timings(decode_s=decode_s, resize_s=resize_s, request_s=request_s),
        )

    def served(self, model: str | None = None, *, timeout: float | None = None) -> ServedModel:
        """Ask which release of a category, by default the client's, the server serves now."""
        deadline = self._deadline(timeout)
        return self._releases.fetch_newest(self._choose(model, deadline), deadline)

    def models(self, *, timeout: float | None = None) -> list[ServedModel]:
        """List the categories that are ready, by name. Other models on the server are left out."""
        return self._releases.categories(self._deadline(timeout))

    def health(self, *, timeout: float | None = None) -> Health:
        """Ask whether the server is ready. Raises `ServerUnavailableError` if none answers."""
        return self._transport.health(timeout=self._deadline(timeout).left())

    def _choose(self, model: str | None, deadline: Deadline) -> str:
        return model or self._model or self._releases.only_category(deadline)

    def _infer(
        self, model: str, batch: NDArray[np.uint8], outputs: Sequence[str], deadline: Deadline
    ) -> Answer:
        """Send one request. Retries belong here and nowhere else, inside the deadline."""
        try:
            return self._transport.infer(model, batch, outputs, timeout=deadline.left())
        except ModelNotFoundError as exc:
            raise self._releases.explain_missing(model, exc, deadline) from exc
        except ServerUnavailableError:
            self._releases.forget(model)  # what comes back may number its releases differently
            raise

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)


def _of_one_image(answer: Answer, outputs: Sequence[str], served: ServedModel) -> dict[str, Any]:
    """Check the outputs that were asked for and strip their batch dimension."""
    specs = {spec.name: spec for spec in contract.ensemble_signature(served.metadata.size).outputs}
    tensors: dict[str, Any] = {}
    for name in outputs:
        expected = (1, *specs[name].dims)
        array = answer.outputs.get(name)
        if array is None or array.shape != expected:
            raise ContractError(
                f"{served.model} version {answer.version}: expected {name} of shape {expected}, "
                f"the server sent {'nothing' if array is None else array.shape}"
            )
        tensors[name] = array[0]
    return tensors
