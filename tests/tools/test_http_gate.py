"""HTTP and metrics, in front of a real Triton that some requests would kill."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client import Client
from diffusionad_tools.server import http_gate, linux
from diffusionad_tools.server.http_gate import InferenceHandler, MetricsHandler, open_gate
from diffusionad_tools.server.ports import listen

LARGE = bytes(5 << 20)  # Triton dies from 4 MiB on
FORM = {"Content-Type": "application/x-www-form-urlencoded"}  # curl's, unless told otherwise
INFER = "/v2/models/widget__encoded/infer"


@pytest.fixture
def alive(encoded_server: Any) -> Iterator[Any]:
    """The server, which must be the same and well after the test."""
    yield encoded_server
    encoded_server.check_alive()
    with Client(encoded_server.grpc_url) as client:
        assert client.health().ready


def ask(url: str, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url, timeout=30)
    try:
        connection.request(method, path, body, **options)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.server
@pytest.mark.parametrize("headers", [FORM, {}, {"Content-Type": "multipart/form-data; boundary=x"}])
def test_a_large_body_of_any_type_gets_its_answer_and_kills_nobody(
    alive: Any, headers: dict[str, str]
) -> None:
    headers = {**headers, "Inference-Header-Content-Length": "0"}
    status, answer = ask(alive.http_url, "POST", INFER, LARGE, headers=headers)
    assert status == 400
    assert "not an image that can be read" in json.loads(answer)["error"]


@pytest.mark.server
@pytest.mark.parametrize("path", [INFER, "/metrics"])
def test_a_chunked_body_is_refused(alive: Any, path: str) -> None:
    url = alive.metrics_url if path == "/metrics" else alive.http_url
    status, answer = ask(url, "POST", path, iter([b"a" * 100]), headers=FORM, encode_chunked=True)
    assert status == (405 if path == "/metrics" else 411)
    assert "error" in json.loads(answer)


@pytest.mark.server
@pytest.mark.parametrize(("method", "status"), [("POST", 405), ("GET", 400)])
@pytest.mark.parametrize("headers", [FORM, {"Content-Type": "application/octet-stream"}])
def test_the_metrics_port_takes_no_body(
    alive: Any, method: str, status: int, headers: dict[str, str]
) -> None:
    # Large, but not sent whole: the refusal comes before.
    with socket.create_connection(alive.metrics_url.split(":"), timeout=10) as caller:
        head = [f"{method} /metrics HTTP/1.1", "Host: x", f"Content-Length: {len(LARGE)}"]
        lines = [*head, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        caller.sendall("\r\n".join(lines).encode() + LARGE[:1000])
        assert caller.recv(100).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.server
def test_metrics_are_tritons_and_nothing_else_answers_on_their_port(alive: Any) -> None:
    status, answer = ask(alive.metrics_url, "GET", "/metrics")
    assert status == 200
    assert b"nv_inference_request_success" in answer
    assert ask(alive.metrics_url, "GET", "/v2/health/ready")[0] == 404


@pytest.mark.server
def test_triton_itself_listens_for_grpc_alone_and_its_sockets_are_ours_alone(
    encoded_server: Any,
) -> None:
    tables = (Path(f"/proc/{encoded_server.pid}/net/{t}").read_text() for t in ("tcp", "tcp6"))
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    ports = {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A"}
    mine = [port for port in ports if linux.listens_on(encoded_server.pid, port)]
    assert [f"127.0.0.1:{port}" for port in mine] == [encoded_server.grpc_url]
    assert encoded_server._site.http_socket.parent.stat().st_mode & 0o077 == 0


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[str]:
    """A gate with nobody behind it."""
    listener = listen("127.0.0.1", "http", 0)
    with open_gate(listener, tmp_path / "nobody.socket", InferenceHandler):
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_while_triton_is_away_the_gate_says_so(gate: str) -> None:
    status, answer = ask(gate, "GET", "/v2/health/ready")
    assert status == 503
    assert "may be starting anew" in json.loads(answer)["error"]


def test_a_body_that_would_fill_the_memory_is_refused_by_its_length(gate: str) -> None:
    headers = {"Content-Length": str(http_gate.MAX_BODY_BYTES + 1)}
    assert ask(gate, "POST", INFER, headers=headers)[0] == 413


@pytest.mark.parametrize("lengths", [["5", "6"], ["five"], ["-1"]])
def test_a_length_that_can_be_read_in_two_ways_is_refused(gate: str, lengths: list[str]) -> None:
    with socket.create_connection(gate.split(":"), timeout=10) as caller:
        lines = [f"POST {INFER} HTTP/1.1", *(f"Content-Length: {n}" for n in lengths), "", ""]
        caller.sendall("\r\n".join(lines).encode())
        assert caller.recv(100).startswith(b"HTTP/1.1 400 ")


def test_an_unknown_method_is_refused(gate: str) -> None:
    assert ask(gate, "DELETE", INFER)[0] == 501


def test_metrics_know_no_other_path(tmp_path: Path) -> None:
    listener = listen("127.0.0.1", "metrics", 0)
    with open_gate(listener, tmp_path / "nobody.socket", MetricsHandler):
        url = f"127.0.0.1:{listener.getsockname()[1]}"
        assert ask(url, "GET", "/")[0] == 404
        assert ask(url, "GET", "/metrics")[0] == 503
