"""`Client` for an event loop: the same methods, to be awaited."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from diffusionad_client import images
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.contract import Priority
from diffusionad_client.sdk.arguments import Decode, check_decode
from diffusionad_client.sdk.catalogue import Catalogue
from diffusionad_client.sdk.client import open_session
from diffusionad_client.sdk.connection import Connection
from diffusionad_client.sdk.health import Health
from diffusionad_client.sdk.inspection import Inspection
from diffusionad_client.sdk.loop import LoopDriver
from diffusionad_client.sdk.options import Options
from diffusionad_client.sdk.probe import Probe
from diffusionad_client.sdk.served import ServedModel
from diffusionad_client.sdk.stats import Stats
from diffusionad_client.sdk.streams import WINDOW, Outcome, loop_stream
from diffusionad_client.sdk.transports.aio import AioTransport
from diffusionad_client.sdk.transports.grpc import GrpcTransport


class AsyncClient:
    """As `Client`, for the event loop in which it is first used.

        async with AsyncClient("127.0.0.1:8001") as client:
            inspection = await client.inspect("part.png")

    Images are decoded in a few threads, so that the loop goes on meanwhile. A
    task that is cancelled cancels its call, on the wire too.
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
        transport: Any = None,
    ) -> None:
        options = Options(model=model, thresholds=thresholds, priority=priority, retry=retry)
        # Steps have its answers awaited: to them it is a transport like any other.
        kind = cast("type[GrpcTransport]", AioTransport)
        self._session, seconds = open_session(url, timeout, admin_key, transport, kind)
        self._options = replace(options, timeout=seconds)
        self._driver = LoopDriver()
        self._owner = True
        weakref.finalize(self._session, self._driver.let_go)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that other tasks have under way end with an error."""
        if self._owner:
            await self._driver.stop()
            await self._driver.run(self._session.close())

    def with_options(
        self,
        *,
        model: str | None = None,
        timeout: float | None = None,
        thresholds: Thresholds | None = None,
        priority: Priority | None = None,
        retry: bool | None = None,
    ) -> AsyncClient:
        """As `Client.with_options`."""
        other = object.__new__(AsyncClient)
        other._options = self._options.but(
            model=model, timeout=timeout, thresholds=thresholds, priority=priority, retry=retry
        )
        other._session, other._driver, other._owner = self._session, self._driver, False
        return other

    async def inspect(
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
        """Score one image; see `Client.inspect`."""
        how = check_decode(decode, encoded)
        options = self._options.but(
            model=model, thresholds=thresholds, priority=priority, timeout=timeout
        )
        return await self._driver.run(
            self._session.inspect(
                image,
                options,
                anomaly_map=anomaly_map,
                reconstruction=reconstruction,
                color=color,
                decode=how,
            )
        )

    async def inspect_batch(
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
        """Score many images; see `Client.inspect_batch`."""
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
        return [outcome async for outcome in stream]

    def inspect_stream(
        self,
        sources: Iterable[images.ImageSource] | AsyncIterable[images.ImageSource],
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
    ) -> AsyncIterator[Outcome]:
        """Score images as they come; see `Client.inspect_stream`.

        `sources` is drawn on in this event loop. A consumer that stops early
        closes the iterator with `aclose` to cancel what is under way at once.
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
        return loop_stream(inspect, sources, window=window, ordered=ordered)

    async def served(
        self, model: str | None = None, *, timeout: float | None = None
    ) -> ServedModel:
        """Ask which release of a category is served now; see `Client.served`."""
        options = self._options.but(model=model, timeout=timeout)
        return await self._driver.run(self._session.served(options))

    async def models(self, *, timeout: float | None = None) -> list[ServedModel]:
        """List the categories that are ready and can be used, by name."""
        return (await self.catalogue(timeout=timeout)).served

    async def catalogue(self, *, timeout: float | None = None) -> Catalogue:
        """List the categories of the server's repository; see `Client.catalogue`."""
        return await self._driver.run(self._session.catalogue(self._options.but(timeout=timeout)))

    async def load(self, model: str, *, timeout: float | None = None) -> ServedModel:
        """Load a category on every server; see `Client.load`."""
        return await self._driver.run(self._session.load(model, self._options.but(timeout=timeout)))

    async def unload(self, model: str, *, timeout: float | None = None) -> None:
        """Unload a category from every server; requests under way are answered still."""
        await self._driver.run(self._session.unload(model, self._options.but(timeout=timeout)))

    async def health(self, *, timeout: float | None = None) -> Health:
        """Ask every server whether it is ready; see `Client.health`."""
        return await self._driver.run(self._session.health(self._options.but(timeout=timeout)))

    async def probe(self, model: str | None = None, *, timeout: float | None = None) -> list[Probe]:
        """Send a grey image through a category, or through all; see `Client.probe`."""
        return await self._driver.run(
            self._session.probe(model, self._options.but(timeout=timeout))
        )

    def stats(self) -> Stats:
        """Sum up the calls so far; see `Client.stats`."""
        return self._session.stats()
