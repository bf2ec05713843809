"""Triton over gRPC for an event loop: one channel, of the loop in which it is first used."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

import grpc
import grpc.aio

from diffusionad_client.sdk.credentials import Credentials
from diffusionad_client.sdk.transports.channel import Line
from diffusionad_client.sdk.transports.forks import CALLS_UNDER_WAY
from diffusionad_client.sdk.transports.methods import Message, Methods

T = TypeVar("T")


class AioTransport(Methods):
    """A `Transport` whose methods return awaitables; a task that is cancelled cancels its call."""

    def __init__(
        self,
        url: str,
        *,
        admin_key: str | None = None,
        credentials: Credentials | None = None,
        host: str | None = None,
    ) -> None:
        self._line = Line(grpc.aio, url, admin_key=admin_key, credentials=credentials, host=host)

    async def close(self) -> None:
        """Let go of the connection; calls under way end with an error."""
        self._line.closed = True
        if self._line.channel is not None:
            await self._line.channel.close()

    def _send(self, message: Message[T], timeout: float) -> Any:
        return self._sent(message, timeout)

    async def _sent(self, message: Message[T], timeout: float) -> T:
        line, started = self._line, time.monotonic()
        try:
            with CALLS_UNDER_WAY:
                method = line.method(message.method)
                metadata = line.metadata(message)
                response = await method(message.request, timeout=timeout, metadata=metadata)
        except asyncio.CancelledError:
            if not line.closed or _is_cancelled():
                raise
            raise line.closed_error() from None  # closing a channel cancels its calls
        except grpc.RpcError as exc:
            error = line.error(exc.code(), exc.details(), message, timeout)
            if line.is_unclear(exc.details()):
                left = started + timeout - time.monotonic()
                why = await asyncio.to_thread(line.why, exc.details(), message, left)
                error = why or error
            raise error from exc
        except grpc.aio.UsageError as exc:
            if not line.closed:
                raise
            raise line.closed_error() from exc
        line.answered = True
        return message.read(response)


def _is_cancelled() -> bool:
    """Tell whether the task itself is to end. Python 3.10 does not know."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() > 0
