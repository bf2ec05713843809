"""Two workers of a Ray cluster on two real servers give what one process gives."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from waiting import wait_for

from diffusionad_client import Client
from diffusionad_client.scoring.results import read_rows
from diffusionad_tools.benchmarks import instant, scoring
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

pytest.importorskip("ray", reason="needs diffusionad-client[ray]")
pytestmark = [pytest.mark.server, pytest.mark.long]

OF_THE_MOMENT = ("timings", "scored_at", "request_id", "server")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[TritonProcess]]:
    repository = instant.write_repository(tmp_path / "models")
    with ExitStack() as stack:
        settings = ServerSettings(repository=repository)
        yield [stack.enter_context(running_server(settings)) for _ in range(2)]


def content(output: Path) -> list[str]:
    documents = [row.to_document() for row in read_rows(output)]
    return sorted(
        json.dumps({k: v for k, v in document.items() if k not in OF_THE_MOMENT})
        for document in documents
    )


def test_a_run_on_two_servers_that_was_killed_is_finished_by_the_same_command(
    servers: list[TritonProcess], tmp_path: Path
) -> None:
    scoring.make_images(tmp_path / "parts", 400, 5)
    urls = ",".join(server.grpc_url for server in servers)
    alone = scoring.score_command(tmp_path / "parts", tmp_path / "alone", "--url", urls)
    on_ray = scoring.score_command(tmp_path / "parts", tmp_path / "ray", "--url", urls)
    on_ray += ["--engine", "ray", "--ray-workers", "2"]
    assert subprocess.run(alone, check=False, stdout=subprocess.DEVNULL).returncode == 0
    part = tmp_path / "ray" / "results.jsonl.part"
    with subprocess.Popen(on_ray, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: part.exists() and part.stat().st_size, 300)
        finally:
            process.send_signal(signal.SIGKILL)
    kept = part.read_bytes().count(b"\n")
    assert 0 < kept < 400
    done = subprocess.run(on_ray, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    assert f"{400 - kept} of them now, {kept} before" in done.stdout
    assert content(tmp_path / "ray") == content(tmp_path / "alone")
    asked = {row.server for row in read_rows(tmp_path / "ray")}
    assert asked == {server.grpc_url for server in servers}


def test_every_image_of_the_instant_category_gets_the_score_it_was_made_for(
    servers: list[TritonProcess], tmp_path: Path
) -> None:
    (image,) = scoring.make_images(tmp_path / "parts", 1, 1)
    with Client(servers[0].grpc_url, instant.CATEGORY) as client:
        for decode in ("client", "server"):
            assert client.inspect(image, decode=decode).score == pytest.approx(0.25)
