"""The SDK: one object that scores images against the categories of Triton servers."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from diffusionad_client import images
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.contract import Priority
from diffusionad_client.sdk.arguments import Decode, check_decode, check_transport
from diffusionad_client.sdk.catalogue import Catalogue
from diffusionad_client.sdk.connection import CALL_S, Connection
from diffusionad_client.sdk.credentials import credentials_of
from diffusionad_client.sdk.health import Health
from diffusionad_client.sdk.inspection import Inspection
from diffusionad_client.sdk.options import Options
from diffusionad_client.sdk.probe import Probe
from diffusionad_client.sdk.served import ServedModel
from diffusionad_client.sdk.session import Session
from diffusionad_client.sdk.stats import Stats
from diffusionad_client.sdk.steps import Steps
from diffusionad_client.sdk.streams import WINDOW, Outcome, thread_stream
from diffusionad_client.sdk.threads import ThreadDriver
from diffusionad_client.sdk.transports.base import Transport
from diffusionad_client.sdk.transports.grpc import GrpcTransport

T = TypeVar("T")


class Client:
    """A connection to one server, or to several that serve the same. Threads may share it.

    `url` is a server's gRPC address, HOST:PORT, or a list of them, or a
    `Connection`, which may hold all that is said of it here. A host's name may
    stand for many servers. Each call goes to the server with the fewest under
    way; one that fails is left until it is back. `model` names the category
    for calls that name none; without it the servers must serve only one.
    `timeout` is in seconds and holds for all that one call asks, 30 by
    default. `thresholds` override those of the release. `priority` says which
    requests a busy server takes first. `retry=False` makes every failure an
    error at once; see `inspect`. `admin_key` opens the repository of a server
    that keeps it closed, for `load`, `unload` and `catalogue`.
    """

    def __init__(
        self,
        url: str | Sequence[str] | Connection,
        model: str | None = None,
        *,
        timeout: float | None = None,
        thresholds: Thresholds | None = None,
        priority: Priority = Priority.INLINE,
        retry: bool = True,
        admin_key: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        options = Options(model=model, thresholds=thresholds, priority=priority, retry=retry)
        self._session, seconds = open_session(url, timeout, admin_key, transport, GrpcTransport)
        self._options = replace(options, timeout=seconds)
        self._driver = ThreadDriver()
        self._owner = True
        # A client that nobody holds any more must not go on looking at servers.
        weakref.finalize(self._session, self._driver.stop)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that other threads have under way end with an error.

        What `with_options` gave is closed with the client that it was given by.
        """
        if self._owner:
            self._driver.stop()
            self._run(self._session.close())

    def with_options(
        self,
        *,
        model: str | None = None,
        timeout: float | None = None,
        thresholds: Thresholds | None = None,
        priority: Priority | None = None,
        retry: bool | None = None,
    ) -> Client:
        """Give a client over the same connection whose calls differ in what is given here."""
        other = object.__new__(Client)
        other._options = self._options.but(
            model=model, timeout=timeout, thresholds=thresholds, priority=priority, retry=retry
        )
        other._session, other._driver, other._owner = self._session, self._driver, False
        return other

    def inspect(
        self,
        image: images.ImageSource,
        *,
        model: str | None = None,
        anomaly_map: bool = True,
        reconstruction: bool = True,
        thresholds: Thresholds | None = None,
        color: images.Color = "rgb",
        decode: Decode | None = None,
        encoded: bool | None = None,
        priority: Priority | None = None,
        timeout: float | None = None,
    ) -> Inspection:
        """Score one image of any size.

        It is a path; a file's bytes, or a file open in binary mode, which is
        read from its position; a PIL image; or an array of numpy's or like it:
        RGB (H, W, 3) uint8, or `color="bgr"` as OpenCV reads it, or grey (H, W).
        A fourth channel, the opacity, is dropped, as it is of files. Arrays of
        uint16 are scaled by the release's depth, as such files are. `color`
        says nothing of what knows its own colours: files and PIL images.

        `decode` says who decodes a file, to the same answer: the "client", as
        by default; the "server", to which it is sent as it is; or "auto": the
        server, if the file is smaller than 3 bytes a pixel of the model's size,
        and the server can. `encoded=True` is the older word for
        `decode="server"`.

        Leave out the map or the reconstruction to save their transfer. A server
        that is busy, or gone after it has answered, is asked again until the
        timeout, or another one is. Raises a `DiffusionADError`: `ImageError`
        for an image that cannot be read or has another form, `ArgumentError`
        for another wrong argument, `DeadlineExceededError` also when a file was
        not read in time.
        """
        how = check_decode(decode, encoded)
        options = self._options.but(
            model=model, thresholds=thresholds, priority=priority, timeout=timeout
        )
        return self._run(
            self._session.inspect(
                image,
                options,
                anomaly_map=anomaly_map,
                reconstruction=reconstruction,
                color=color,
                decode=how,
            )
        )

    def inspect_batch(
        self,
        sources: Iterable[images.ImageSource],
        *,
        window: int = WINDOW,
        model: str | None = None,
        anomaly_map: bool = True,
        reconstruction: bool = True,
        thresholds: Thresholds | None = None,
        color: images.Color = "rgb",
        decode: Decode | None = None,
        encoded: bool | None = None,
        priority: Priority | None = None,
        timeout: float | None = None,
    ) -> list[Outcome]:
        """Score many images, `window` at a time; the list has an outcome for each, in order.

        What else can be said is that of `inspect`. An image that fails is an error in
        its own outcome; the others are scored all the same.
        """
        how = check_decode(decode, encoded)
        stream = self.inspect_stream(
            sources,
            window=window,
            model=model,
            anomaly_map=anomaly_map,
            reconstruction=reconstruction,
            thresholds=thresholds,
            color=color,
            decode=how,
            priority=priority,
            timeout=timeout,
        )
        return [*stream]

    def inspect_stream(
        self,
        sources: Iterable[images.ImageSource],
        *,
        window: int = WINDOW,
        ordered: bool = True,
        model: str | None = None,
        anomaly_map: bool = True,
        reconstruction: bool = True,
        thresholds: Thresholds | None = None,
        color: images.Color = "rgb",
        decode: Decode | None = None,
        encoded: bool | None = None,
        priority: Priority | None = None,
        timeout: float | None = None,
    ) -> Iterator[Outcome]:
        """Score images as they come, `window` at a time, and give an outcome for each.

        What else can be said is that of `inspect`. No more than `window` images are
        under way or wait to be taken here: a producer is held back by a slow
        consumer. `sources` is drawn on from another thread. With
        `ordered=False` an outcome is given as soon as it is there; its `index`
        tells which image it is of. A consumer that stops early, and closes the
        iterator or lets go of it, cancels what is under way.
        """
        how = check_decode(decode, encoded)
        inspect = partial(
            self.inspect,
            model=model,
            anomaly_map=anomaly_map,
            reconstruction=reconstruction,
            thresholds=thresholds,
            color=color,
            decode=how,
            priority=priority,
            timeout=timeout,
        )
        return thread_stream(inspect, sources, window=window, ordered=ordered)

    def served(self, model: str | None = None, *, timeout: float | None = None) -> ServedModel:
        """Ask which release of a category, by default the client's, is served now."""
        return self._run(self._session.served(self._options.but(model=model, timeout=timeout)))

    def models(self, *, timeout: float | None = None) -> list[ServedModel]:
        """List the categories that are ready and can be used, by name. See `catalogue`."""
        return self.catalogue(timeout=timeout).served

    def catalogue(self, *, timeout: float | None = None) -> Catalogue:
        """List the categories of the server's repository, with the reason for those it is not so.

        Those that cannot be used, those that are not loaded; models that are
        none of ours are left out. Of several servers one is asked; `health`
        tells where they differ.
        """
        return self._run(self._session.catalogue(self._options.but(timeout=timeout)))

    def load(self, model: str, *, timeout: float | None = None) -> ServedModel:
        """Load a category on every server, or load it anew as it stands in its repository now.

        Its encoded form is loaded and unloaded by itself, as `screw__encoded`.
        The server must have been started with explicit model control. What it
        still unloads of the category is waited for first, see `settling`. Raises
        `AccessDeniedError` without its admin key, `ModelLoadError` with the
        server's reason, what was loaded before is then served on; or if it
        does not answer once it is loaded; `DeadlineExceededError`.
        """
        return self._run(self._session.load(model, self._options.but(timeout=timeout)))

    def unload(self, model: str, *, timeout: float | None = None) -> None:
        """Unload a category from every server; requests under way are answered still."""
        self._run(self._session.unload(model, self._options.but(timeout=timeout)))

    def health(self, *, timeout: float | None = None) -> Health:
        """Ask every server whether it is ready. Raises `ServerUnavailableError` if none answers."""
        return self._run(self._session.health(self._options.but(timeout=timeout)))

    def probe(self, model: str | None = None, *, timeout: float | None = None) -> list[Probe]:
        """Send a grey image through a category, or through all that the servers serve.

        A server's own word that it is ready does not tell: it says so of models
        whose process has died. Raises a `DiffusionADError` if a server does
        not tell what it serves; what fails after that is in the answers.
        """
        return self._run(self._session.probe(model, self._options.but(timeout=timeout)))

    def stats(self) -> Stats:
        """Sum up the calls so far: tries, errors by type, latencies, for each server too."""
        return self._session.stats()

    def _run(self, steps: Steps[T]) -> T:
        return self._driver.run(steps)


def open_session(
    url: str | Sequence[str] | Connection,
    timeout: float | None,
    admin_key: str | None,
    transport: Transport | None,
    kind: type[GrpcTransport],
) -> tuple[Session, float]:
    """Give the servers, over `transport` or else lines of a `kind`, and how long a call may take.

    Raises as `Connection` does.
    """
    if transport is not None:
        given = check_transport(transport)
        place = url.address if isinstance(url, Connection) else str(url)
        return Session((place,), lambda url, host: given), CALL_S if timeout is None else timeout
    connection = connection_of(url, timeout, admin_key)
    credentials = credentials_of(connection)

    def dial(url: str, host: str | None) -> Transport:
        return kind(url, credentials=credentials, host=host)

    return Session(connection.servers, dial), connection.timeout


def connection_of(
    url: str | Sequence[str] | Connection, timeout: float | None, admin_key: str | None
) -> Connection:
    """Complete what a caller gave of a connection; what is said beside it goes before it."""
    connection = url if isinstance(url, Connection) else Connection(url)
    if timeout is not None:
        connection = replace(connection, timeout=timeout)
    return connection if admin_key is None else replace(connection, admin_key=admin_key)
