"""The SDK: one object that scores images against the categories of a Triton server."""

from __future__ import annotations

import time
from dataclasses import replace
from types import TracebackType

from diffusionad_client import contract, images
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.contract import Priority
from diffusionad_client.errors import ArgumentError, ImageError, ModelLoadError
from diffusionad_client.sdk.arguments import (
    check_flag,
    check_priority,
    check_thresholds,
    check_transport,
)
from diffusionad_client.sdk.catalogue import Catalogue
from diffusionad_client.sdk.connection import CALL_S, Connection
from diffusionad_client.sdk.credentials import credentials_of
from diffusionad_client.sdk.deadline import Deadline, check_timeout
from diffusionad_client.sdk.inference import Inference, Request
from diffusionad_client.sdk.inspection import Inspection, Timings
from diffusionad_client.sdk.judgement import judge_by_metadata, judgement_that_came
from diffusionad_client.sdk.probe import Probe, probe, probe_all
from diffusionad_client.sdk.releases import Releases
from diffusionad_client.sdk.served import ServedModel
from diffusionad_client.sdk.transports.base import Health, Transport
from diffusionad_client.sdk.transports.grpc import GrpcTransport


class Client:
    """A connection to one server. Threads may share it.

    `url` is the server's gRPC address, HOST:PORT, or a `Connection`, which may
    hold all that is said of it here. `model` names the category for calls that
    name none; without it the server must serve only one. `timeout` is in
    seconds and holds for all that one call asks of the server, 30 by default.
    `thresholds` override those of the release. `priority` says which requests
    a busy server takes first. `retry=False` makes every failure an error at
    once; see `inspect`. `admin_key` opens the repository of a server that keeps
    it closed, for `load`, `unload` and `catalogue`.
    """

    def __init__(
        self,
        url: str | Connection,
        model: str | None = None,
        *,
        timeout: float | None = None,
        thresholds: Thresholds | None = None,
        priority: Priority = Priority.INLINE,
        retry: bool = True,
        admin_key: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._model = None if model is None else contract.check_category(model)
        self._thresholds = check_thresholds(thresholds)
        self._priority = check_priority(priority)
        retry = check_flag("retry", retry)
        if transport is None:
            connection = _connection(url, timeout, admin_key)
            if len(connection.servers) > 1:
                raise ArgumentError(f"a client asks one server, not {connection.address}")
            (url,), timeout = connection.servers, connection.timeout
            transport = GrpcTransport(url, credentials=credentials_of(connection))
        self._timeout = CALL_S if timeout is None else check_timeout(timeout)
        self._transport = check_transport(transport)
        where = url.address if isinstance(url, Connection) else str(url)
        self._releases = Releases(transport, where)
        self._inference = Inference(self._transport, self._releases, retry=retry)
        self._once = Inference(self._transport, self._releases, retry=False)

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
        own = check_thresholds(thresholds) or self._thresholds
        urgency = self._priority if priority is None else check_priority(priority)
        outputs = [contract.SCORE]
        outputs += [contract.ANOMALY_MAP] if check_flag("anomaly_map", anomaly_map) else []
        outputs += [contract.RECONSTRUCTION] if check_flag("reconstruction", reconstruction) else []
        category = self._model if model is None else contract.check_category(model)
        started = time.perf_counter()
        deadline = self._deadline(timeout)
        read = images.read_file if check_flag("encoded", encoded) else images.read_pixels
        loaded = read(image, timeout=deadline.left())
        decode_s = time.perf_counter() - started

        request = Request(loaded, category, outputs, urgency)
        try:
            reply = self._inference.run(request, deadline)
        except ImageError as exc:
            if not encoded or isinstance(image, bytes):
                raise
            raise ImageError(f"{image}: {exc}") from exc  # the server knows no name of the file
        served, tensors = reply.served, reply.tensors
        score = float(tensors[contract.SCORE][0])
        if reply.judged:
            judgement = judgement_that_came(tensors, served.metadata)
        else:
            judgement = judge_by_metadata(score, served.metadata)
        inspection = Inspection(
            score=score,
            verdict=judgement.verdict,
            thresholds=judgement.thresholds,
            anomaly_map=tensors.get(contract.ANOMALY_MAP),
            reconstruction=tensors.get(contract.RECONSTRUCTION),
            pixel_threshold=judgement.pixel_threshold,
            model=served.metadata.category,
            version=served.version,
            release=judgement.release,
            roi=served.metadata.roi,
            timings=Timings(decode_s, reply.resize_s, reply.request_s),
        )
        return inspection if own is None else inspection.judged_by(own)

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
        server's reason, what was loaded before is then served on; or if it
        does not answer once it is loaded.
        """
        deadline = self._deadline(timeout)
        self._transport.load(_check_form(model), timeout=deadline.left())
        served = self._releases.fetch_newest(model, deadline)
        proof = probe(self._once, model, deadline)
        if proof.is_broken:
            raise ModelLoadError(
                f"{model}: the server says that it is loaded, but it does not answer; a server "
                f"does not load again what has not changed, so restart it: {proof.error}"
            ) from proof.error
        return served

    def unload(self, model: str, *, timeout: float | None = None) -> None:
        """Unload a category; requests under way are answered still."""
        deadline = self._deadline(timeout)
        self._transport.unload(_check_form(model), timeout=deadline.left())
        self._releases.forget(model)

    def health(self, *, timeout: float | None = None) -> Health:
        """Ask whether the server is ready. Raises `ServerUnavailableError` if none answers."""
        return self._transport.health(timeout=self._deadline(timeout).left())

    def probe(self, model: str | None = None, *, timeout: float | None = None) -> list[Probe]:
        """Send a grey image through a category, or through all that the server serves.

        A server's own word that it is ready does not tell: it says so of models
        whose process has died. Raises a `DiffusionADError` if the server does
        not tell what it serves; what fails after that is in the answers.
        """
        deadline = self._deadline(timeout)
        chosen = self._model if model is None else _check_form(model)
        if chosen is not None:
            return [probe(self._once, chosen, deadline)]
        return probe_all(self._once, self._releases.categories(deadline), deadline)

    def _choose(self, model: str | None, deadline: Deadline) -> str:
        if model is not None:
            return contract.check_category(model)
        return self._model or self._releases.only_category(deadline)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)


def _connection(url: str | Connection, timeout: float | None, admin_key: str | None) -> Connection:
    """Complete what a caller gave of a connection; what is said beside it goes before it."""
    connection = url if isinstance(url, Connection) else Connection(url)
    if timeout is not None:
        connection = replace(connection, timeout=timeout)
    return connection if admin_key is None else replace(connection, admin_key=admin_key)


def _check_form(model: str) -> str:
    """Return `model` if it names a category or its encoded form."""
    if isinstance(model, str) and model == contract.encoded_model(model.partition("__")[0]):
        return model
    return contract.check_category(model)
