"""Drives steps on an event loop, which does other things while it waits."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from diffusionad_client.errors import DiffusionADError
from diffusionad_client.sdk.steps import (
    AT_ONCE,
    Alongside,
    Ask,
    LocalWork,
    Pause,
    Resolve,
    Step,
    Steps,
    Together,
)
from diffusionad_client.sdk.threads import addresses

T = TypeVar("T")


class LoopDriver:
    """Takes courses of steps on one event loop, that of the first."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alongside: dict[str, asyncio.Task[None]] = {}
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, steps: Steps[T]) -> T:
        """Take a course to its end, and give what it comes to."""
        self._check_loop()
        try:
            step = next(steps)
            while True:
                try:
                    came = await self._do(step)
                except BaseException as exc:  # a cancellation too: it lets go of what it holds
                    step = steps.throw(exc)
                else:
                    step = steps.send(came)
        except StopIteration as end:
            result: T = end.value
            return result

    async def stop(self) -> None:
        """End what runs in the background."""
        tasks = [*self._alongside.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._alongside.clear()
        # Calls under way learn from their lines that they are closed, not from a lost image.
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def let_go(self) -> None:
        """End what runs in the background, of a client that nobody holds any more."""
        tasks = [*self._alongside.values()]
        if self._loop is not None and tasks:
            with suppress(RuntimeError):  # the loop is closed, and its tasks with it
                for task in tasks:
                    self._loop.call_soon_threadsafe(task.cancel)

    def _check_loop(self) -> None:
        """Keep to one loop: a channel of gRPC's can be used in no other, or never answers there."""
        here = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = here
        if self._loop is not here:
            raise DiffusionADError(
                "an AsyncClient belongs to the event loop in which it was first used; make one "
                "in each loop, such as in the function that asyncio.run is given"
            )

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return await step.call()
        if isinstance(step, LocalWork):
            return await asyncio.get_running_loop().run_in_executor(self._workers(), step.do)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Together):
            return await self._together(step)
        if isinstance(step, Resolve):
            return await _resolve(step)
        return self._start(step)

    def _workers(self) -> ThreadPoolExecutor:
        """Give threads to decode images in: more than cores would only take turns."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="diffusionad")
        return self._pool

    async def _together(self, step: Together) -> list[Any]:
        room = asyncio.Semaphore(AT_ONCE)

        async def take(course: Steps[Any]) -> Any:
            async with room:
                return await self.run(course)

        # All of them end before the first error is raised, as in threads.
        came = await asyncio.gather(*map(take, step.courses), return_exceptions=True)
        for each in came:
            if isinstance(each, BaseException):
                raise each
        return [*came]

    def _start(self, step: Alongside) -> None:
        before = self._alongside.get(step.name)
        if before is None or before.done():
            self._alongside = {n: t for n, t in self._alongside.items() if not t.done()}
            self._alongside[step.name] = asyncio.create_task(self._take(step.course))

    async def _take(self, course: Callable[[], Steps[None]]) -> None:
        await self.run(course())


async def _resolve(step: Resolve) -> list[str]:
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo(step.host, step.port, type=socket.SOCK_STREAM)
    try:
        return addresses(await asyncio.wait_for(look_up, step.timeout))
    except (OSError, UnicodeError, asyncio.TimeoutError):
        return []
