"""Measure what the SDK adds to bare gRPC calls, and that nothing of it grows.

    python -m diffusionad_tools.benchmarks.sdk overhead
    python -m diffusionad_tools.benchmarks.sdk calls --calls 100000
    python -m diffusionad_tools.benchmarks.sdk outage --callers 50 --seconds 20

The server is a fake one in a process of its own: it answers at once, so that
what is measured is the client. Ways that are compared take turns, and the
median of their ratios counts: on a shared machine it tells more than either.
Linux only.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import tritonclient.grpc as triton

from diffusionad_client import AsyncClient, Client, DiffusionADError, contract
from diffusionad_client.testing import FakeCategory, FakeServer, Fault
from diffusionad_tools.benchmarks.apart import fake_server

_SIZE = 256
_IMAGE = np.random.default_rng(0).integers(0, 256, (_SIZE, _SIZE, 3), dtype=np.uint8)
_OUTPUTS = [contract.SCORE, *contract.judgement_outputs(contract.NEWEST)]
_ONLY_SCORE: dict[str, Any] = {"anomaly_map": False, "reconstruction": False}


@click.group()
def sdk() -> None:
    """Measure the client by itself."""


@sdk.command()
@click.option("--rounds", default=9, show_default=True, help="Turns of each way.")
@click.option("--images", default=400, show_default=True, help="Images in a turn.")
@click.option("--url", help="Server that serves models of 256 pixels.  [default: a fake one]")
@click.option("--model", default="screw", show_default=True, help="Category.")
def overhead(rounds: int, images: int, url: str | None, model: str) -> None:
    """Compare calls of the SDK with the same requests over bare tritonclient.grpc.

    Of a server given with --url, or of one that answers at once: then a call takes
    a millisecond, and each microsecond of the client shows.
    """
    at = nullcontext(url) if url else fake_server(_SIZE)
    with at as url, Client(url, model) as client, _bare(url, model) as bare:
        ask = partial(client.inspect, _IMAGE, **_ONLY_SCORE)
        ways: dict[str, Callable[[], float]] = {
            "bare, 1": lambda: _in_threads(bare, 1, images),
            "sdk, 1": lambda: _in_threads(ask, 1, images),
            "bare, 8": lambda: _in_threads(bare, 8, images),
            "sdk, 8": lambda: _in_threads(ask, 8, images),
            "sdk, 64": lambda: _in_threads(ask, 64, images),
            "async, 64": lambda: asyncio.run(_on_a_loop(url, model, 64, images)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                took = way()
                if turn:  # the first is for warming up
                    seconds[name].append(took / images)
    medians = {name: 1e3 * statistics.median(each) for name, each in seconds.items()}
    for name, ms in medians.items():
        click.echo(f"{name:10} {ms:7.3f} ms an image, {1e3 / ms:6.0f} images/s")

    def ratio(one: str, other: str) -> float:
        pairs = zip(seconds[one], seconds[other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    added = statistics.median(
        1e3 * (a - b) for a, b in zip(seconds["sdk, 1"], seconds["bare, 1"], strict=True)
    )
    click.echo(f"added at 1:             {added:.3f} ms an image")
    click.echo(f"time at 8, sdk : bare   {ratio('sdk, 8', 'bare, 8'):.3f}")
    click.echo(f"time at 64, async : sdk {ratio('async, 64', 'sdk, 64'):.3f}")


@sdk.command()
@click.option("--calls", default=100_000, show_default=True)
@click.option("--concurrency", default=8, show_default=True)
def calls(calls: int, concurrency: int) -> None:
    """Make many calls, and tell what memory, threads and descriptors are left of them."""
    small = np.zeros((8, 8, 3), np.uint8)
    with fake_server(_SIZE) as url:
        with Client(url, "screw") as client:
            client.inspect(small)  # gRPC opens some descriptors for good
        before = _held()
        with Client(url, "screw") as client:
            for number in range(1, 11):
                share = (small for _ in range(calls // 10))
                stream = client.inspect_stream(
                    share, window=concurrency, ordered=False, **_ONLY_SCORE
                )
                failed = sum(outcome.error is not None for outcome in stream)
                click.echo(f"{number * calls // 10:8} calls, {failed} failed: {_shown(_held())}")
        click.echo(f"before: {_shown(before)}; closed: {_shown(_held())}")


@sdk.command()
@click.option("--callers", default=50, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="Of the outage.")
@click.option("--timeout", default=2.0, show_default=True, help="Of a call, in seconds.")
def outage(callers: int, seconds: float, timeout: float) -> None:
    """Let a server refuse everything for a while, and count what callers send meanwhile."""
    over = threading.Event()
    errors: Counter[str] = Counter()
    answered_at: list[float] = []

    def station(client: Client) -> None:
        while not over.is_set():
            try:
                client.inspect(_IMAGE, timeout=timeout, **_ONLY_SCORE)
                answered_at.append(time.monotonic())
            except DiffusionADError as exc:
                errors[type(exc).__name__] += 1

    with (
        FakeServer(FakeCategory(size=_SIZE), threads=callers + 4) as server,
        Client(server.url, "screw") as client,
        ThreadPoolExecutor(callers) as pool,
    ):
        stations = [pool.submit(station, client) for _ in range(callers)]
        time.sleep(2)
        server.fail(Fault.STOPPING, "ModelInfer", "ModelReady", "ModelConfig", "ModelMetadata")
        started, before = time.monotonic(), client.stats()
        arrived = server.counts["ModelInfer"]
        time.sleep(seconds)
        after = client.stats()
        arrived = server.counts["ModelInfer"] - arrived
        server.heal()
        ended = time.monotonic()
        time.sleep(3)
        over.set()
        for each in stations:
            each.result()
    asked = after.calls - before.calls
    first = min(at for at in answered_at if at > ended) - ended
    lost = [at for at in answered_at if started + 0.5 < at < ended]
    document = {
        "calls": asked,
        "tries": after.tries - before.tries,
        "images_that_arrived": arrived,
        "tries_a_call": round((after.tries - before.tries) / asked, 3),
        "errors": dict(errors),
        "answers_in_the_outage": len(lost),
        "first_answer_after_s": round(first, 3),
    }
    click.echo(json.dumps(document, indent=2))


@contextmanager
def _bare(url: str, model: str) -> Iterator[Callable[[], None]]:
    """Give the same request as the SDK's, as one would write it with tritonclient."""
    with triton.InferenceServerClient(url) as client:

        def ask() -> None:
            tensor = triton.InferInput(contract.IMAGE, (1, *_IMAGE.shape), "UINT8")
            tensor.set_data_from_numpy(_IMAGE[np.newaxis])
            outputs = [triton.InferRequestedOutput(name) for name in _OUTPUTS]
            answer = client.infer(model, [tensor], outputs=outputs, client_timeout=30)
            for name in _OUTPUTS:
                answer.as_numpy(name)

        yield ask


def _in_threads(ask: Callable[[], Any], threads: int, images: int) -> float:
    started = time.perf_counter()
    if threads == 1:
        for _ in range(images):
            ask()
    else:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(ask) for _ in range(images)]:
                done.result()
    return time.perf_counter() - started


async def _on_a_loop(url: str, model: str, tasks: int, images: int) -> float:
    room = asyncio.Semaphore(tasks)
    async with AsyncClient(url, model) as client:

        async def ask() -> None:
            async with room:
                await client.inspect(_IMAGE, **_ONLY_SCORE)

        await ask()
        started = time.perf_counter()
        await asyncio.gather(*[ask() for _ in range(images)])
        return time.perf_counter() - started


def _held() -> tuple[float, int, int]:
    """Give the memory of this process in MB, its threads, its open descriptors."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024, threading.active_count(), len(os.listdir("/proc/self/fd"))


def _shown(held: tuple[float, int, int]) -> str:
    return f"{held[0]:.1f} MB, {held[1]} threads, {held[2]} descriptors"


if __name__ == "__main__":
    sdk()
