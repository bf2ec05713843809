"""A real server that stops, comes back, or loses a process under requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from ports import free_port
from waiting import wait_for as wait_for_seconds

from diffusionad_client import (
    Client,
    DiffusionADError,
    ServerUnavailableError,
    Thresholds,
    Verdict,
)
from diffusionad_client.cli import main
from diffusionad_client.sdk.admin_key import ensure_admin_key
from diffusionad_tools.server.process import ExplicitControl, ServerSettings, running_server

wait_for = partial(wait_for_seconds, seconds=30)

pytestmark = pytest.mark.server

IMAGE = np.full((16, 16, 3), 90, np.uint8)


@pytest.fixture
def repository(make_bundle: Any, publish_ungated: Any, tmp_path: Path) -> Path:
    publish_ungated(make_bundle(), tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def port() -> int:
    return free_port()


def test_no_call_is_lost_while_a_server_stops_and_starts_again(
    repository: Path, port: int, tmp_path: Path
) -> None:
    for number in range(200):
        path = tmp_path / "images" / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGE).save(path)
    settings = ServerSettings(repository=repository, grpc_port=port)
    answers: Counter[str] = Counter()
    over = Event()

    def station(client: Client) -> None:
        while not over.is_set():
            try:
                client.inspect(IMAGE, anomaly_map=False, reconstruction=False)
                answers["answered"] += 1
            except DiffusionADError as exc:
                answers[f"{type(exc).__name__}: {exc}"] += 1
            time.sleep(0.02)  # or else nothing is left of the machine to start a server with

    output = tmp_path / "results"
    rows = output / "results.jsonl.part"
    command = [
        *(sys.executable, "-m", "diffusionad_client", "score", str(tmp_path / "images")),
        *("--url", f"127.0.0.1:{port}", "--output", str(output), "--no-report", "--no-heatmaps"),
    ]
    with (
        ThreadPoolExecutor(4) as pool,
        Client(f"127.0.0.1:{port}", "widget", timeout=60) as named,
        Client(f"127.0.0.1:{port}", timeout=60) as unnamed,
    ):
        try:
            with running_server(settings):
                # What never answered is not waited for.
                for client in (named, unnamed):
                    client.inspect(IMAGE)
                stations = [pool.submit(station, c) for c in (named, named, unnamed)]
                scoring = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                wait_for(lambda: rows.exists() and len(rows.read_bytes().splitlines()) > 20)
                assert scoring.poll() is None
            before = answers["answered"]
            with running_server(settings):
                wait_for(lambda: answers["answered"] > before + 20)
                over.set()
                for done in stations:
                    done.result(timeout=60)
                said = scoring.communicate(timeout=60)
        finally:
            over.set()
    assert set(answers) == {"answered"}
    assert scoring.returncode == 0, said
    summary = json.loads((output / "run.json").read_text())
    assert (summary["images"], summary["failed"]) == (200, 0)


def test_an_idle_client_judges_by_the_server_that_took_the_place_of_another(
    make_bundle: Any, publish_ungated: Any, port: int, tmp_path: Path
) -> None:
    limits = {"strict": Thresholds(0.001, 0.002), "lax": Thresholds(0.9, 0.95)}
    for name, thresholds in limits.items():
        publish_ungated(make_bundle(thresholds=thresholds), tmp_path / name)
    with Client(f"127.0.0.1:{port}", "widget", timeout=60) as client:
        for name, verdict in (("lax", Verdict.OK), ("strict", Verdict.NG)):
            with running_server(ServerSettings(repository=tmp_path / name, grpc_port=port)):
                found = client.inspect(IMAGE)
                # The same version of the same category: only the answer tells them apart.
                assert (found.model, found.version) == ("widget", "1")
                assert (found.thresholds, found.verdict) == (limits[name], verdict)
                assert found.release == client.served().metadata.release


def test_a_dead_process_is_seen_by_an_image_and_cured_by_no_load(
    repository: Path, tmp_path: Path, stubs_of: Callable[[int], list[int]]
) -> None:
    key_file = tmp_path / "admin.key"
    explicit = ExplicitControl(load=["*"], admin_key=ensure_admin_key(key_file))
    with running_server(ServerSettings(repository=repository, explicit=explicit)) as server:
        where = ("--url", server.grpc_url)
        deep = ["health", "--deep", "--model", "widget", *where]
        assert CliRunner().invoke(main, deep).exit_code == 0

        os.kill(stubs_of(server.pid)[0], signal.SIGKILL)

        with Client(server.grpc_url, "widget", retry=False) as client:
            assert client.health().ready  # it notices nothing
            with pytest.raises(ServerUnavailableError, match="has died"):
                client.inspect(IMAGE)
        checked = CliRunner().invoke(main, deep)
        assert checked.exit_code == 1
        assert "widget: does not answer" in checked.output
        load = ["models", "load", "widget", *where, "--admin-key-file", str(key_file)]
        loaded = CliRunner().invoke(main, load)
        assert loaded.exit_code == 1
        assert "restart it" in loaded.output
        where = ("--repository", str(repository), *where, "--admin-key-file", str(key_file))
        promoted = CliRunner().invoke(main, ["release", "promote", "widget", "1", *where])
        assert promoted.exit_code == 1
        assert "does not answer" in promoted.output
