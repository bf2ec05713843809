"""Many images through one client: all of them, each once, in order, and no more at a time."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from waiting import wait_for

from diffusionad_client import (
    ArgumentError,
    AsyncClient,
    Client,
    ImageError,
    InferenceError,
)
from diffusionad_client.testing import FakeCategory, FakeServer, Fault

SMALL = {"anomaly_map": False, "reconstruction": False}


def red(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((8, 8, 3), value, np.uint8)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    category = FakeCategory(size=16, score=lambda picture: float(picture.mean()) / 255)
    with FakeServer(category, threads=32) as server:
        yield server


def scores_of(values: list[int]) -> list[float]:
    return [value / 255 for value in values]


def test_outcomes_come_in_the_order_of_their_images(server: FakeServer) -> None:
    values = [*range(100)]
    with Client(server.url) as client:
        found = [*client.inspect_stream(map(red, values), window=6, **SMALL)]
    assert [outcome.index for outcome in found] == values
    np.testing.assert_allclose([o.result().score for o in found], scores_of(values), atol=1e-6)


def test_outcomes_come_as_they_are_there_if_that_is_asked_for(server: FakeServer) -> None:
    slow = threading.Event()

    def score(picture: Any) -> float:
        if picture[0, 0, 0] == 0:
            slow.wait(10)
        return float(picture.mean()) / 255

    server.category.score = score
    with Client(server.url) as client:
        stream = client.inspect_stream(map(red, range(5)), window=3, ordered=False, **SMALL)
        first = [next(stream).index for _ in range(4)]
        slow.set()
        assert 0 not in first
        assert [outcome.index for outcome in stream] == [0]


def test_an_image_that_fails_is_an_error_in_its_own_place(server: FakeServer) -> None:
    with Client(server.url) as client:
        client.inspect(red(1))
        server.fail(Fault.FAILS, times=1)
        found = client.inspect_batch([red(1), b"no image", red(3)], window=1, **SMALL)
    kinds = [type(outcome.error) for outcome in found]
    assert kinds == [InferenceError, ImageError, type(None)]
    assert found[2].result().score == pytest.approx(3 / 255)
    with pytest.raises(ImageError):
        found[1].result()


@pytest.mark.parametrize("ordered", [True, False])
def test_a_producer_is_held_back_by_a_slow_consumer(server: FakeServer, ordered: bool) -> None:
    drawn = 0

    def images() -> Iterator[Any]:
        nonlocal drawn
        while True:
            drawn += 1
            yield red(1)

    with Client(server.url) as client:
        stream = client.inspect_stream(images(), window=4, ordered=ordered, **SMALL)
        for taken in range(1, 10):
            next(stream)
            time.sleep(0.05)
            assert drawn <= taken + 4 + 1  # one waits in the producer's hands
        stream.close()  # type: ignore[attr-defined]  # a generator


def test_a_slow_producer_holds_back_no_outcome(server: FakeServer) -> None:
    more = threading.Event()

    def images() -> Iterator[Any]:
        yield red(1)
        more.wait(10)
        yield red(2)

    with Client(server.url) as client:
        stream = client.inspect_stream(images(), window=4, **SMALL)
        assert next(stream).index == 0  # though the second image is still to come
        more.set()
        assert [outcome.index for outcome in stream] == [1]


def test_a_producers_own_error_comes_after_the_outcomes_before_it(server: FakeServer) -> None:
    def images() -> Iterator[Any]:
        yield red(1)
        yield red(2)
        raise OSError("the camera is gone")

    with Client(server.url) as client:
        stream = client.inspect_stream(images(), **SMALL)
        assert [next(stream).index, next(stream).index] == [0, 1]
        with pytest.raises(OSError, match="the camera is gone"):
            next(stream)


def test_a_consumer_that_stops_cancels_what_is_under_way(server: FakeServer) -> None:
    cancelled: list[bool] = []

    def images() -> Iterator[Any]:
        while True:
            yield red(1)

    with Client(server.url) as client:
        client.inspect(red(1))
        server.fail(Fault.HANGS)
        stream = client.inspect_stream(images(), window=4, timeout=60, **SMALL)
        taking = threading.Thread(target=lambda: cancelled.append(next(stream, None) is None))
        taking.start()
        wait_for(lambda: server.under_way == 4)
        started = time.monotonic()
        # A generator that runs in another thread cannot be closed from here: its consumer leaves
        # with an error of its own, as one that is interrupted does.
        client.close()
        taking.join(10)
        assert time.monotonic() - started < 5
        wait_for(lambda: server.under_way == 0)


def test_a_stream_that_is_let_go_of_leaves_no_thread_and_no_call(server: FakeServer) -> None:
    def ours() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name.startswith("diffusionad")]

    hangs = threading.Event()

    def images() -> Iterator[Any]:
        yield red(1)
        hangs.wait(10)
        yield from map(red, [1] * 50)

    with Client(server.url) as client:
        stream = client.inspect_stream(images(), window=4, timeout=60, **SMALL)
        next(stream)
        server.fail(Fault.HANGS)
        hangs.set()
        wait_for(lambda: server.under_way == 3)  # and the one that was taken
        started = time.monotonic()
        del stream
        gc.collect()
        assert time.monotonic() - started < 5
        wait_for(lambda: server.under_way == 0)
        wait_for(lambda: not ours())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sources": "part.png"}, "several images, not 'part.png'"),
        ({"sources": red(1)}, "several images"),
        ({"sources": 5}, "several images, not 5"),
        ({"sources": [], "window": 0}, "1 to 1024 images, not 0"),
        ({"sources": [], "window": "8"}, "whole number of images, not '8'"),
        ({"sources": [], "ordered": "no"}, "True or False"),
    ],
)
def test_wrong_arguments_are_errors_at_once(
    server: FakeServer, arguments: dict[str, Any], said: str
) -> None:
    with Client(server.url) as client, pytest.raises(ArgumentError, match=said):
        client.inspect_stream(**arguments)

    async def run() -> None:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ArgumentError, match=said):
                client.inspect_stream(**arguments)

    asyncio.run(run())


def test_a_batch_of_none_is_none(server: FakeServer) -> None:
    with Client(server.url) as client:
        assert client.inspect_batch([]) == []


def test_an_event_loop_draws_on_plain_and_on_async_images(server: FakeServer) -> None:
    async def camera() -> AsyncIterator[Any]:
        for value in range(20):
            await asyncio.sleep(0)
            yield red(value)

    async def run() -> None:
        async with AsyncClient(server.url) as client:
            for sources in (camera(), map(red, range(20))):
                found = [o async for o in client.inspect_stream(sources, window=5, **SMALL)]
                assert [outcome.index for outcome in found] == [*range(20)]
                np.testing.assert_allclose(
                    [o.result().score for o in found], scores_of([*range(20)]), atol=1e-6
                )

    asyncio.run(run())


def test_a_cancelled_task_cancels_its_call_on_the_wire(server: FakeServer) -> None:
    async def run() -> None:
        async with AsyncClient(server.url) as client:
            await client.inspect(red(1))
            server.fail(Fault.HANGS)
            task = asyncio.create_task(client.inspect(red(1), timeout=60))
            await asyncio.to_thread(wait_for, lambda: server.under_way == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(wait_for, lambda: server.under_way == 0)
            stream = client.inspect_stream([red(1)] * 9, window=3, timeout=60)
            taking = asyncio.create_task(anext(stream))
            await asyncio.to_thread(wait_for, lambda: server.under_way == 3)
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
            await asyncio.to_thread(wait_for, lambda: server.under_way == 0)

    asyncio.run(run())
