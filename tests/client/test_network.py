"""A network that is slow, is cut or falls silent between a client and its servers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from network import Network
from waiting import wait_for

from diffusionad_client import Client, DeadlineExceededError, ServerUnavailableError
from diffusionad_client.testing import FakeCategory, FakeServer

IMAGE = np.zeros((64, 64, 3), np.uint8)
SMALL: dict[str, Any] = {"anomaly_map": False, "reconstruction": False}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(FakeCategory(size=64)) as server:
        yield server


@pytest.fixture
def network(server: FakeServer) -> Iterator[Network]:
    with Network(server.url) as network:
        yield network


def test_a_slow_network_makes_answers_late_and_fails_none(network: Network) -> None:
    network.delay_s = 0.05
    network.bytes_per_second = 200_000  # 12 kB an image: 60 ms
    with Client(network.url, timeout=10) as client:
        outcomes = client.inspect_batch([IMAGE] * 10, **SMALL)
    assert all(outcome.error is None for outcome in outcomes)
    assert client.stats().tries == 10


def test_a_network_too_slow_for_the_deadline_is_an_error_when_that_is_over(
    network: Network,
) -> None:
    with Client(network.url, "screw") as client:
        client.inspect(IMAGE, **SMALL)
        network.bytes_per_second = 2_000
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            client.inspect(IMAGE, timeout=0.5, **SMALL)
        assert time.monotonic() - began < 1.0


def test_calls_under_way_when_the_network_is_cut_are_answered_once_it_is_mended(
    network: Network, server: FakeServer
) -> None:
    with Client(network.url, "screw", timeout=20) as client, ThreadPoolExecutor(4) as pool:
        client.inspect(IMAGE, **SMALL)
        server.slow_s = 0.3
        found = [pool.submit(client.inspect, IMAGE, **SMALL) for _ in range(4)]
        wait_for(lambda: server.under_way == 4)
        network.cut()
        time.sleep(0.5)
        assert not any(each.done() for each in found)
        network.mend()
        mended = time.monotonic()
        assert {each.result(timeout=10).score for each in found}
        assert time.monotonic() - mended < 3


def test_a_server_behind_a_silent_network_is_left_for_another_and_taken_back(
    network: Network,
) -> None:
    with FakeServer(FakeCategory(size=64)) as other, Client([network.url, other.url]) as client:
        client.inspect_batch([IMAGE] * 6, **SMALL)
        network.fall_silent()
        began = time.monotonic()
        servers = {client.inspect(IMAGE, timeout=2, **SMALL).server for _ in range(10)}
        assert servers == {other.url}
        assert time.monotonic() - began < 2  # one call lost its share, the others nothing
        network.mend()
        wait_for(lambda: client.inspect(IMAGE, **SMALL).server == network.url, 5)


def test_a_silent_network_ends_a_call_at_its_deadline(network: Network) -> None:
    with Client(network.url, "screw") as client:
        client.inspect(IMAGE, **SMALL)
        network.fall_silent()
        began = time.monotonic()
        with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
            client.inspect(IMAGE, timeout=0.5, **SMALL)
        assert time.monotonic() - began < 1.0


def test_a_run_whose_network_is_cut_twice_loses_no_image(
    network: Network, server: FakeServer, tmp_path: Path, save_image: Callable[..., Path]
) -> None:
    for number in range(60):
        save_image(tmp_path / "parts" / f"{number:02}.png", number)
    server.slow_s = 0.02
    output = tmp_path / "out"
    command = [sys.executable, "-m", "diffusionad_client", "score", str(tmp_path / "parts")]
    command += ["--url", network.url, "--output", str(output), "--no-report", "--heatmaps", "none"]
    part = output / "results.jsonl.part"

    def lines() -> int:
        return len(part.read_bytes().splitlines()) if part.exists() else 0

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        for reached in (10, 30):
            wait_for(lambda reached=reached: lines() >= reached or run.poll() is not None, 30)
            network.cut()
            time.sleep(0.5)
            network.mend()
        _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said
    summary = json.loads((output / "run.json").read_text())
    assert (summary["images"], summary["failed"]) == (60, 0)
