"""Many images through one client: what is under way is bounded, and nothing is lost or repeated."""

from __future__ import annotations

import asyncio
import operator
import os
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from diffusionad_client.errors import ArgumentError, DiffusionADError, shown
from diffusionad_client.file_bytes import holds_file
from diffusionad_client.images import ImageSource
from diffusionad_client.sdk.arguments import check_flag
from diffusionad_client.sdk.inspection import Inspection
from diffusionad_client.sdk.prepared import held
from diffusionad_client.sdk.transports.grpc import Cancellation

WINDOW = 8
_WIDEST = 1024


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one image of many: an inspection or an error."""

    index: int  # of the image, in the order in which they came
    image: ImageSource
    inspection: Inspection | None = None
    error: DiffusionADError | None = None

    def result(self) -> Inspection:
        """Give the inspection, or raise the error that stands in its place."""
        if self.inspection is None:
            raise self.error or DiffusionADError("this outcome holds neither")
        return self.inspection


class Order:
    """Which outcomes may be given now: in the order of their images, or as they come."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._waiting: dict[int, Outcome] = {}
        self._next = 0

    def take(self, outcome: Outcome) -> Iterator[Outcome]:
        """Take one that has come; give what may be given after it."""
        if not self._ordered:
            yield outcome
            return
        self._waiting[outcome.index] = outcome
        while (ready := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            yield ready


def thread_stream(
    inspect: Callable[..., Inspection],
    sources: Iterable[ImageSource],
    *,
    window: int,
    ordered: bool,
) -> Iterator[Outcome]:
    """Score images in threads. Wrong arguments are errors at once, not when it is drawn on."""
    width = _check_window(window)
    _check_sources(sources, Iterable)
    return _ThreadStream(inspect, iter(sources), width, _order(ordered)).run()


class _ThreadStream:
    def __init__(
        self,
        inspect: Callable[..., Inspection],
        sources: Iterator[ImageSource],
        width: int,
        order: Order,
    ) -> None:
        self._inspect = inspect
        self._sources = sources
        self._width = width
        self._order = order
        self._room = threading.Semaphore(width)
        self._came: queue.SimpleQueue[Outcome | _End] = queue.SimpleQueue()
        self._cancellation = Cancellation()
        self._over = threading.Event()

    def run(self) -> Iterator[Outcome]:
        self._pid = os.getpid()
        pool = ThreadPoolExecutor(self._width, thread_name_prefix="diffusionad stream")
        feeder = threading.Thread(
            target=self._feed, args=(pool,), name="diffusionad feeder", daemon=True
        )
        feeder.start()
        try:
            given, end = 0, None
            while end is None or given < end.count:
                self._check_process()
                came = self._came.get()
                if isinstance(came, _End):
                    end = came
                    continue
                for outcome in self._order.take(came):
                    yield outcome
                    self._check_process()
                    given += 1
                    self._room.release()
            if end.error is not None:
                raise end.error
        finally:
            if os.getpid() == self._pid:  # else the threads are not here, but their locks are
                self._over.set()
                self._cancellation.cancel()
                self._room.release()  # for a feeder that waits for room
                pool.shutdown(wait=True, cancel_futures=True)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise DiffusionADError(
                "this stream was begun before the process was forked, and its threads are not in "
                "this one; begin another here"
            )

    def _feed(self, pool: ThreadPoolExecutor) -> None:
        """Draw on the images in a thread of its own: a slow producer holds back no outcome."""
        count = 0
        try:
            while True:
                self._room.acquire()
                if self._over.is_set():
                    return
                try:
                    source = held(next(self._sources))
                except StopIteration:
                    break
                if self._over.is_set():
                    return
                pool.submit(self._score, count, source)
                count += 1
        except BaseException as exc:  # the producer's own, for the consumer to see
            self._came.put(_End(count, exc))
        else:
            self._came.put(_End(count))

    def _score(self, index: int, source: ImageSource) -> None:
        with self._cancellation.of_this_thread():
            try:
                outcome = Outcome(index, source, self._inspect(source))
            except DiffusionADError as exc:
                outcome = Outcome(index, source, error=exc)
            except BaseException as exc:
                self._came.put(_End(-1, exc))
                return
        self._came.put(outcome)


def loop_stream(
    inspect: Callable[..., Awaitable[Inspection]],
    sources: Iterable[ImageSource] | AsyncIterable[ImageSource],
    *,
    window: int,
    ordered: bool,
) -> AsyncIterator[Outcome]:
    """Score images in tasks of the event loop that is running; as `thread_stream` otherwise."""
    width = _check_window(window)
    _check_sources(sources, (Iterable, AsyncIterable))
    return _loop_stream(inspect, sources, width, _order(ordered))


async def _loop_stream(
    inspect: Callable[..., Awaitable[Inspection]],
    sources: Iterable[ImageSource] | AsyncIterable[ImageSource],
    width: int,
    order: Order,
) -> AsyncIterator[Outcome]:
    room = asyncio.Semaphore(width)
    came: asyncio.Queue[Outcome | _End] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()

    async def score(index: int, source: ImageSource) -> None:
        try:
            outcome = Outcome(index, source, await inspect(source))
        except DiffusionADError as exc:
            outcome = Outcome(index, source, error=exc)
        except BaseException as exc:  # a cancellation too: whoever waits is to hear of it
            came.put_nowait(_End(-1, exc))
            return
        came.put_nowait(outcome)

    async def feed() -> None:
        count = 0
        try:
            drawn = _drawn(sources)
            while True:
                await room.acquire()
                try:
                    source = held(await anext(drawn))
                except StopAsyncIteration:
                    break
                task = asyncio.create_task(score(count, source))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                count += 1
        except BaseException as exc:  # the producer's own, for the consumer to see
            came.put_nowait(_End(count, exc))
        else:
            came.put_nowait(_End(count))

    feeder = asyncio.create_task(feed())
    try:
        given, end = 0, None
        while end is None or given < end.count:
            found = await came.get()
            if isinstance(found, _End):
                end = found
                continue
            for outcome in order.take(found):
                yield outcome
                given += 1
                room.release()
        if end.error is not None:
            raise end.error
    finally:
        under_way = [feeder, *tasks]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


@dataclass(frozen=True)
class _End:
    """There are no more images than these."""

    count: int
    error: BaseException | None = None


async def _drawn(
    sources: Iterable[ImageSource] | AsyncIterable[ImageSource],
) -> AsyncIterator[ImageSource]:
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield source
    else:
        for source in sources:
            yield source


def _order(ordered: bool) -> Order:
    return Order(ordered=check_flag("ordered", ordered))


def _check_sources(sources: object, kinds: Any) -> None:
    one = holds_file(sources) or getattr(sources, "ndim", 4) != 4
    if one or not isinstance(sources, kinds):
        raise ArgumentError(f"a stream is of several images, not {shown(sources)}; give a list")


def _check_window(window: int) -> int:
    try:
        width = operator.index(window)
    except TypeError as exc:
        raise ArgumentError(f"a window is a whole number of images, not {shown(window)}") from exc
    if isinstance(window, bool) or not 1 <= width <= _WIDEST:
        raise ArgumentError(f"a window is of 1 to {_WIDEST} images, not {shown(window)}")
    return width
