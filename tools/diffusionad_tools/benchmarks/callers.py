"""Callers in processes of their own: so many a second, whatever the answers, or so many at once.

Each call is one try over the client's transport, so an error is the client's
own, and nothing is asked again. Times are of the machine's monotonic clock,
which all processes share. Linux only.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusionad_client import DiffusionADError, contract
from diffusionad_client.contract import Priority
from diffusionad_client.sdk.transports.aio import AioTransport

_TIMEOUT_S = 30.0
_START_S = 0.5  # for a caller to reach the server, before it begins


@dataclass(frozen=True)
class LoadRequest:
    """What a caller sends, again and again."""

    url: str
    model: str
    batch: Any  # (1, H, W, 3) uint8, or (1, 1) of the bytes of a file
    priority: Priority


@dataclass(frozen=True)
class Call:
    """What came of one call."""

    at: float  # s, when it was sent
    seconds: float
    error: str  # the type's name; "" of an answer
    retryable: bool  # of the error

    @property
    def ended(self) -> float:
        """When the answer or the error came, in s."""
        return self.at + self.seconds


class Callers:
    """A process for each caller that may be busy at once."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def at_rate(
        self, request: LoadRequest, rate: float, seconds: float, begin: float
    ) -> Future[list[Call]]:
        """Send `rate` requests a second from `begin` on, a time of the monotonic clock."""
        return self._pool.submit(_run, _at_rate, request, rate, seconds, begin)

    def at_once(
        self, request: LoadRequest, count: int, seconds: float, begin: float
    ) -> Future[list[Call]]:
        """Keep `count` requests under way from `begin` on."""
        return self._pool.submit(_run, _at_once, request, count, seconds, begin)


def soon() -> float:
    """Give a time at which callers that are told now will be there."""
    return time.monotonic() + _START_S


@contextmanager
def callers(count: int) -> Iterator[Callers]:
    """Start the processes, and end them."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        for started in [pool.submit(time.sleep, _START_S) for _ in range(count)]:
            started.result()
        yield Callers(pool)


_Send = Callable[[], Awaitable[Call]]
_Way = Callable[[_Send, float, float, float], Awaitable[list[Call]]]


def _run(way: _Way, request: LoadRequest, much: float, seconds: float, begin: float) -> list[Call]:
    async def run() -> list[Call]:
        transport: Any = AioTransport(request.url)
        try:
            await transport.ready(timeout=_TIMEOUT_S)
            await asyncio.sleep(begin - time.monotonic())
            return await way(lambda: _send(transport, request), much, seconds, begin)
        finally:
            await transport.close()

    return asyncio.run(run())


async def _at_rate(send: _Send, rate: float, seconds: float, begin: float) -> list[Call]:
    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(begin + number / rate - time.monotonic())
        tasks.append(asyncio.ensure_future(send()))
    return list(await asyncio.gather(*tasks))


async def _at_once(send: _Send, count: float, seconds: float, begin: float) -> list[Call]:
    calls = []

    async def station() -> None:
        while time.monotonic() < begin + seconds:
            calls.append(await send())

    await asyncio.gather(*(station() for _ in range(int(count))))
    return calls


async def _send(transport: Any, request: LoadRequest) -> Call:
    at, error, retryable = time.monotonic(), "", False
    try:
        await transport.infer(
            request.model,
            request.batch,
            [contract.SCORE],
            priority=request.priority,
            timeout=_TIMEOUT_S,
        )
    except DiffusionADError as exc:
        error, retryable = type(exc).__name__, exc.retryable
    return Call(at, time.monotonic() - at, error, retryable)
