"""A client's spans and those of a real Triton's, joined in one trace."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner

from diffusionad_client.cli import main
from diffusionad_tools.server.process import ServerSettings, running_server

# In a process of its own: a program has one tracer for good.
CALL = """
import sys
import numpy as np
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from diffusionad_client import Client

trace.set_tracer_provider(TracerProvider())
with Client(sys.argv[1]) as client, trace.get_tracer("line").start_as_current_span("part") as part:
    client.inspect(np.zeros((8, 8, 3), np.uint8))
    print(f"{part.get_span_context().trace_id:032x}")
"""


@pytest.fixture
def collector() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of one that takes spans as OTLP over HTTP, and what it took."""
    spans: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in json.loads(body)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    spans.extend(scope["spans"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        server.shutdown()


@pytest.mark.server
def test_the_spans_of_a_server_join_the_trace_of_the_client(
    make_bundle: Any,
    publish_ungated: Any,
    tmp_path: Path,
    collector: tuple[str, list[dict[str, Any]]],
) -> None:
    url, spans = collector
    repository = tmp_path / "repository"
    publish_ungated(make_bundle(), repository)
    with running_server(ServerSettings(repository=repository, traces=url)) as server:
        command = [sys.executable, "-c", CALL, server.grpc_url]
        called = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        trace_id = called.stdout.strip()
        end = time.monotonic() + 15
        while not any(span["traceId"] == trace_id for span in spans):
            assert time.monotonic() < end
            time.sleep(0.1)
    joined = [span for span in spans if span["traceId"] == trace_id]
    models = {
        attribute["value"]["stringValue"]
        for span in joined
        for attribute in span.get("attributes", [])
        if attribute["key"] == "triton.model_name"
    }
    assert {"widget", "widget__segmentation", "widget__judgement"} <= models


@pytest.mark.parametrize(
    "url", ["collector:4318", "https://collector/v1", "http://collector:99999"]
)
def test_an_address_that_takes_no_spans_is_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "widget").mkdir()
    (tmp_path / "widget" / "config.pbtxt").write_text("")
    result = CliRunner().invoke(main, ["serve", "--repository", str(tmp_path), "--trace-url", url])
    assert result.exit_code == 1
    assert "such as http://127.0.0.1:4318/v1/traces" in result.stderr
