"""Score a stream against a fleet while one server is killed and another stops for a while.

    python -m diffusionad_tools.benchmarks.fleet --repository model_repository --model screw

Serves the repository three times. A calm run of the same images comes first;
then one server is killed at a third of the images and started again at two
thirds, and another is stopped (SIGSTOP) for five seconds in between. What
counts: an answer for every image, once, equal to the calm run's, in time.
Linux only.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from diffusionad_client import Client
from diffusionad_tools.demo_data.part import sample_part
from diffusionad_tools.demo_data.rendering import render
from diffusionad_tools.server.ports import LOOPBACK, choose_port
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

_SERVERS = 3
_DIFFERENT = 16  # pictures, which are sent in turn


@dataclass
class Trouble:
    """What is done to the servers, by the number of images that were drawn."""

    at: dict[int, Any] = field(default_factory=dict)

    def drawn(self, number: int) -> None:
        """Do what is due before the image of that number."""
        action = self.at.pop(number, None)
        if action is not None:
            threading.Thread(target=action, daemon=True).start()


@click.command()
@click.option("--repository", required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Category.")
@click.option("--images", default=3000, show_default=True)
@click.option("--window", default=8, show_default=True, help="Images under way.")
@click.option("--timeout", default=30.0, show_default=True, help="Of a call, in seconds.")
@click.option("--stopped", default=5.0, show_default=True, help="Seconds of the SIGSTOP.")
def fleet(
    repository: Path, model: str, images: int, window: int, timeout: float, stopped: float
) -> None:
    """Compare a calm run over three servers with one that meets trouble."""
    pictures = [render(sample_part(np.random.default_rng(seed), 320)) for seed in range(_DIFFERENT)]
    with ExitStack() as stack:
        plant = [_Plant(repository, choose_port(LOOPBACK, "grpc", 0)) for _ in range(_SERVERS)]
        for each in plant:
            each.start()
            stack.callback(each.stop)
        urls = [each.url for each in plant]
        calm = _run(urls, model, pictures, images, window, timeout, Trouble())

        def pause() -> None:
            os.kill(plant[1].pid, signal.SIGSTOP)
            time.sleep(stopped)
            os.kill(plant[1].pid, signal.SIGCONT)

        trouble = Trouble(
            {
                images // 3: plant[0].kill,
                images // 2: pause,
                2 * images // 3: plant[0].start,
            }
        )
        tried = _run(urls, model, pictures, images, window, timeout, trouble)
    document = {
        "images": images,
        "calm": calm.summary(),
        "trouble": tried.summary(),
        "largest_difference": _largest_difference(calm.scores, tried.scores),
        "timeout_s": timeout,
    }
    click.echo(json.dumps(document, indent=2))


def _largest_difference(calm: list[float | None], tried: list[float | None]) -> float | None:
    """Compare scores image by image; None if one is missing.

    An image's score depends in its last digits on how many share its batch: 1e-7 means equal.
    """
    pairs = list(zip(calm, tried, strict=True))
    if any(a is None or b is None for a, b in pairs):
        return None
    return max(abs(a - b) for a, b in pairs if a is not None and b is not None)


class _Plant:
    """One server, which can be killed and started again at the same port."""

    def __init__(self, repository: Path, port: int) -> None:
        self._settings = ServerSettings(repository=repository, grpc_port=port)
        self.url = f"127.0.0.1:{port}"
        self._context: Any = None
        self.pid = 0

    def start(self) -> None:
        self.stop()
        self._context = running_server(self._settings)
        server: TritonProcess = self._context.__enter__()
        self.pid = server.pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            with suppress(Exception):  # it may have been killed
                context.__exit__(None, None, None)


@dataclass
class _Run:
    scores: list[float | None]
    errors: Counter[str]
    servers: Counter[str]
    seconds: list[float]
    took: float
    tries: int

    def summary(self) -> dict[str, Any]:
        shares = [*self.servers.values()]
        return {
            "answers": sum(score is not None for score in self.scores),
            "errors": dict(self.errors),
            "shares": dict(self.servers),
            "spread": round(max(shares) / min(shares), 3),
            "images_per_second": round(len(self.scores) / self.took, 1),
            "tries": self.tries,
            "median_s": round(statistics.median(self.seconds), 3),
            "longest_s": round(max(self.seconds), 3),
        }


def _run(
    urls: list[str],
    model: str,
    pictures: list[NDArray[np.uint8]],
    images: int,
    window: int,
    timeout: float,
    trouble: Trouble,
) -> _Run:
    begun: dict[int, float] = {}

    def source() -> Iterator[NDArray[np.uint8]]:
        for number in range(images):
            trouble.drawn(number)
            begun[number] = time.monotonic()
            yield pictures[number % len(pictures)]

    run = _Run([None] * images, Counter(), Counter(), [], 0.0, 0)
    started = time.monotonic()
    with Client(urls, model, timeout=timeout) as client:
        stream = client.inspect_stream(
            source(), window=window, ordered=False, anomaly_map=False, reconstruction=False
        )
        seen: set[int] = set()
        for outcome in stream:
            if outcome.index in seen:
                run.errors["given twice"] += 1
            seen.add(outcome.index)
            run.seconds.append(time.monotonic() - begun[outcome.index])
            if outcome.inspection is None:
                run.errors[type(outcome.error).__name__] += 1
            else:
                run.scores[outcome.index] = outcome.inspection.score
                run.servers[outcome.inspection.server] += 1
        run.tries = client.stats().tries
    run.took = time.monotonic() - started
    return run


if __name__ == "__main__":
    fleet()
