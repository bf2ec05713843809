"""A window that grows finds out how many images at once a server is fastest with."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from diffusionad_client.cli import main
from diffusionad_client.scoring import window
from diffusionad_client.scoring.window import MOST, GrowingWindow


class Server:
    """A server that works on `slots` images at a time, each for `work_s`, and queues `queue` more.

    Time passes only as the images are done: it is a simulation, on a clock of its own.
    """

    def __init__(self, slots: int, work_s: float = 0.1, queue: int = 1000) -> None:
        self.slots, self.work_s, self.queue = slots, work_s, queue
        self.now = 0.0
        self.refused = 0
        self.window = GrowingWindow(lambda: self.refused, lambda: self.now)
        self.limits: list[int] = []

    def run(self, images: int) -> None:
        ends: list[tuple[float, int, Any]] = []
        free = [0.0] * self.slots  # when each slot is free
        numbers = count()
        while images or ends:
            while images and len(ends) < self.window.limit:
                context = self.window.image()
                context.__enter__()
                self.refused += len(ends) >= self.slots + self.queue
                heapq.heapify(free)
                end = max(heapq.heappop(free), self.now) + self.work_s
                heapq.heappush(free, end)
                heapq.heappush(ends, (end, next(numbers), context))
                images -= 1
            self.now, _, context = heapq.heappop(ends)
            context.__exit__(None, None, None)
            self.limits.append(self.window.limit)


@pytest.mark.parametrize("slots", [1, 4, 8, 30])
def test_the_window_becomes_as_wide_as_makes_the_run_faster_and_not_much_wider(slots: int) -> None:
    server = Server(slots)
    server.run(4000)
    settled = sorted(server.limits[2000:])
    usual = settled[len(settled) // 2]
    assert slots * 0.9 <= usual <= max(slots * window.GROWTH**2, window.FIRST)


def test_a_server_that_never_has_enough_gets_the_most() -> None:
    server = Server(slots=1000)
    server.run(10_000)
    assert max(server.limits) == MOST


def test_the_window_shrinks_when_the_server_is_full() -> None:
    server = Server(slots=8, queue=0)
    server.run(4000)
    settled = sorted(server.limits[2000:])
    assert 4 <= settled[len(settled) // 2] <= 8


def test_the_window_shrinks_when_images_wait_too_long() -> None:
    server = Server(slots=1, work_s=5)
    server.run(300)
    assert server.limits[-1] <= 3


def test_a_server_that_becomes_slower_is_noticed() -> None:
    server = Server(slots=30)
    server.run(3000)
    wide = server.window.limit
    server.slots = 2
    server.run(4000)
    assert server.window.limit < wide / 2


def test_a_folder_is_scored_with_a_window_that_grows(
    triton: Any, tmp_path: Path, save_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(120):
        save_image(tmp_path / "parts" / f"{number:03}.png", number, size=(8, 8))
    most = 0

    def work(call: Any) -> None:
        nonlocal most
        most = max(most, triton.under_way)
        time.sleep(0.02)

    triton.on_call = work
    monkeypatch.setattr(window, "SHORTEST_EPOCH_S", 0.05)
    command = ["score", str(tmp_path / "parts"), "--url", triton.url, "--concurrency", "auto"]
    done = CliRunner().invoke(main, [*command, "--output", str(tmp_path / "out"), "--no-report"])
    assert done.exit_code == 0, done.output
    assert most > window.FIRST
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 120


@pytest.mark.parametrize("value", ["0", "257", "fast", "1.5"])
def test_a_concurrency_that_is_none_is_wrong_usage(tmp_path: Path, value: str) -> None:
    done = CliRunner().invoke(
        main, ["score", "parts", "--output", str(tmp_path), "--concurrency", value]
    )
    assert done.exit_code == 2
