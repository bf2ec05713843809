"""The SDK: one object that scores images against the categories of a Triton server."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from diffusionad_client import contract, images
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.contract import Priority
from diffusionad_client.errors import (
    ContractError,
    DeadlineExceededError,
    DiffusionADError,
    ImageError,
    ModelNotFoundError,
    ServerBusyError,
    ServerUnavailableError,
)
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.inspection import Inspection, Timings
from diffusionad_client.sdk.releases import Catalogue, Releases, ServedModel
from diffusionad_client.sdk.transports.base import Answer, Batch, Health, Transport
from diffusionad_client.sdk.transports.grpc import GrpcTransport

FIRST_PAUSE_S = 0.1  # before a request is tried again; doubled each time
LONGEST_PAUSE_S = 2.0


class Client:
    """A connection to one server. Threads may share it.

    `url` is the server's gRPC address, HOST:PORT. `model` names the category
    for calls that name none; without it the server must serve only one.
    `timeout` is in seconds and holds for all that one call asks of the server.
    `thresholds` override those of the release. `priority` says which requests
    a busy server takes first. `retry=False` makes every failure an error at
    once; see `inspect`. `admin_key` opens the repository of a server that keeps
    it closed, for `load`, `unload` and `catalogue`.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout: float = 30.0,
        thresholds: Thresholds | None = None,
        priority: Priority = Priority.INLINE,
        retry: bool = True,
        admin_key: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._model = None if model is None else contract.check_category(model)
        self._timeout = timeout
        self._thresholds = thresholds
        self._priority = priority
        self._retry = retry
        self._deadline(None)  # refuses a timeout that makes no sense, now rather than later
        self._transport = (
            GrpcTransport(url, admin_key=admin_key) if transport is None else transport
        )
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
        encoded: bool = False,
        priority: Priority | None = None,
        timeout: float | None = None,
    ) -> Inspection:
        """Score one image: a path, its bytes, a PIL image or RGB (H, W, 3) uint8 of any size.

        Leave out the map or the reconstruction to save their transfer. With
        `encoded`, a path or bytes are sent as they are and the server decodes
        them, to the same answer: fewer bytes on the wire if the file is
        smaller than 3 bytes a pixel of the model's size. A server
        that is busy, or gone after it has answered, is asked again until the
        timeout. Raises a `DiffusionADError`.
        """
        started = time.perf_counter()
        loaded = images.read_file(image) if encoded else images.load(image)
        decode_s = time.perf_counter() - started

        outputs = [contract.SCORE]
        outputs += [contract.ANOMALY_MAP] if anomaly_map else []
        outputs += [contract.RECONSTRUCTION] if reconstruction else []
        urgency = self._priority if priority is None else priority
        request = _Request(loaded, model, outputs, urgency)
        try:
            reply = self._infer(request, self._deadline(timeout))
        except ImageError as exc:  # the server's, which knows no name of the file
            where = "" if isinstance(image, bytes) else f"{image}: "
            raise ImageError(f"{where}{exc}") from exc
        served = reply.served
        tensors = _of_one_image(reply.answer, outputs, served)
        score = float(tensors[contract.SCORE][0])
        limits = thresholds or self._thresholds or served.metadata.thresholds
        return Inspection(
            score=score,
            verdict=limits.verdict(score),
            thresholds=limits,
            anomaly_map=tensors.get(contract.ANOMALY_MAP),
            reconstruction=tensors.get(contract.RECONSTRUCTION),
            pixel_threshold=served.metadata.pixel_threshold,
            model=served.metadata.category,
            version=served.version,
            release=served.metadata.release,
            roi=served.metadata.roi,
            timings=Timings(decode_s, reply.resize_s, reply.request_s),
        )

    def served(self, model: str | None = None, *, timeout: float | None = None) -> ServedModel:
        """Ask which release of a category, by default the client's, the server serves now."""
        deadline = self._deadline(timeout)
        return self._releases.fetch_newest(self._choose(model, deadline), deadline)

    def models(self, *, timeout: float | None = None) -> list[ServedModel]:
        """List the categories that are ready and can be used, by name. See `catalogue`."""
        return self.catalogue(timeout=timeout).served

    def catalogue(self, *, timeout: float | None = None) -> Catalogue:
        """List the categories of the server's repository, with the reason for those it is not so.

        Those that cannot be used, those that are not loaded; models that are
        none of ours are left out.
        """
        return self._releases.categories(self._deadline(timeout))

    def load(self, model: str, *, timeout: float | None = None) -> ServedModel:
        """Load a category, or load it anew as it stands in the server's repository now.

        Its encoded form is loaded and unloaded by itself, as `screw__encoded`.
        The server must have been started with explicit model control. Raises
        `AccessDeniedError` without its admin key, `ModelLoadError` with the
        server's reason; what was loaded before is then served on.
        """
        deadline = self._deadline(timeout)
        self._transport.load(_check_form(model), timeout=deadline.left())
        return self._releases.fetch_newest(model, deadline)

    def unload(self, model: str, *, timeout: float | None = None) -> None:
        """Unload a category; requests under way are answered still."""
        deadline = self._deadline(timeout)
        self._transport.unload(_check_form(model), timeout=deadline.left())
        self._releases.forget(model)

    def health(self, *, timeout: float | None = None) -> Health:
        """Ask whether the server is ready. Raises `ServerUnavailableError` if none answers."""
        return self._transport.health(timeout=self._deadline(timeout).left())

    def _choose(self, model: str | None, deadline: Deadline) -> str:
        if model is not None:
            return contract.check_category(model)
        return self._model or self._releases.only_category(deadline)

    def _infer(self, request: _Request, deadline: Deadline) -> _Reply:
        """Ask until there is an answer. Retries are made here and nowhere else.

        Tried again, inside the deadline, is what passes by itself: a full
        queue, and a server that is gone but has answered before. One that was
        never reached is an error at once: more likely its address is wrong.
        """
        pauses = _pauses()
        failure: DiffusionADError | None = None
        while True:
            try:
                return self._infer_once(request, deadline)
            except (ServerBusyError, ServerUnavailableError) as exc:
                pause = next(pauses)
                if not (self._retry and self._releases.reached and deadline.allows(pause)):
                    raise
                failure = exc
            except DeadlineExceededError as exc:
                if failure is None:
                    raise
                raise failure from exc  # why it took so long, not that a last try had no time
            time.sleep(pause)

    def _infer_once(self, request: _Request, deadline: Deadline) -> _Reply:
        category = self._choose(request.model, deadline)
        image = request.image
        face = contract.encoded_model(category) if isinstance(image, bytes) else category
        served = self._releases.newest(face, deadline)
        started = time.perf_counter()
        batch = _batch_of_one(image, served.metadata.size)
        resize_s = time.perf_counter() - started
        started = time.perf_counter()
        try:
            answer = self._transport.infer(
                served.model,
                batch,
                request.outputs,
                priority=request.priority,
                timeout=deadline.left(),
            )
        except ModelNotFoundError as exc:
            raise self._releases.explain_missing(served.model, exc, deadline) from exc
        except (ServerUnavailableError, DeadlineExceededError):
            # What comes back may number its releases differently; the last try of an outage
            # may just run out of time.
            self._releases.forget(served.model)
            raise
        request_s = time.perf_counter() - started
        if answer.version != served.version:  # so that score and thresholds are of one release
            served = self._releases.of_version(served.model, answer.version, deadline)
        return _Reply(served, answer, resize_s, request_s)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)


def _check_form(model: str) -> str:
    """Return `model` if it names a category or its encoded form."""
    category = model.partition("__")[0]
    return model if model == contract.encoded_model(category) else contract.check_category(model)


@dataclass(frozen=True, eq=False)
class _Request:
    """What one call of `inspect` asks for, however often it has to ask."""

    image: images.RGBImage | bytes  # bytes: a file for the server to decode
    model: str | None  # None: the server's only category
    outputs: Sequence[str]
    priority: Priority


@dataclass(frozen=True)
class _Reply:
    """An answer with the release that gave it, and where the time went."""

    served: ServedModel
    answer: Answer
    resize_s: float
    request_s: float


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait before each next try; at random, so that clients spread out."""
    longest = FIRST_PAUSE_S
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(2 * longest, LONGEST_PAUSE_S)


def _batch_of_one(image: images.RGBImage | bytes, size: int) -> Batch:
    if isinstance(image, bytes):
        return np.array([[image]], dtype=np.object_)
    return images.resize(image, size)[np.newaxis]


def _of_one_image(answer: Answer, outputs: Sequence[str], served: ServedModel) -> dict[str, Any]:
    """Check the outputs that were asked for and strip their batch dimension."""
    size, agreed = served.metadata.size, served.metadata.contract
    specs = {spec.name: spec for spec in contract.ensemble_signature(size, agreed).outputs}
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
