"""HTTP in front of Triton's own, which a single request can kill.

Triton 2.51 takes a body of the type `application/x-www-form-urlencoded`, which
curl sends unless told otherwise, for a form, and dies of one from 4 MiB on: on
its HTTP port as on its metrics port. So it listens on Unix sockets in a folder
of ours, and what reaches those has been read here: bodies whole, of a stated
length and of a type that it leaves alone; to the metrics no body at all.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from diffusionad_tools.server.private_line import UnixConnection

MAX_BODY_BYTES = 256 << 20
_IDLE_S = 60.0  # a connection on which nothing comes is closed
_LINGER_S = 2.0  # after a refusal, for the rest of what was being sent
_TRITON_S = 600.0  # for an answer; the caller's own timeout should be shorter
# Those that speak of one connection, and those that are written anew.
_NOT_PASSED_ON = {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"),
    *("transfer-encoding", "content-length", "content-type", "host"),
}


class _Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Gate(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, triton: Path, handler: type[_Handler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()  # the one that it made for itself
        self.socket = listener
        self.triton = triton

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of callers that hang up."""


class _Handler(ABC, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "diffusionad"
    sys_version = ""
    timeout = _IDLE_S
    server: _Gate

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of single requests."""

    @abstractmethod
    def read_request(self) -> bytes | None:
        """Read the body to pass on, None for none. Raises `_Refused`."""

    def _answer(self) -> None:
        try:
            body = self.read_request()
            status, headers, answer = self._ask_triton(body)
        except _Refused as refused:
            self.close_connection = True  # what is left of the body is not read
            status, headers = refused.status, [("Content-Type", "application/json")]
            answer = json.dumps({"error": str(refused)}).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer)
        if self.close_connection:
            self._linger()

    def _linger(self) -> None:
        """Take what is still being sent: a caller cut off meanwhile would not see the answer."""
        left, end = MAX_BODY_BYTES, time.monotonic() + _LINGER_S
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_S)
            while left > 0 and time.monotonic() < end:
                read = len(self.rfile.read1(1 << 16))
                if read == 0:
                    break
                left -= read

    def _ask_triton(self, body: bytes | None) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_PASSED_ON}
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        connection = UnixConnection(self.server.triton, _TRITON_S)
        try:
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise _Refused(503, f"Triton does not answer, it may be starting anew: {exc}") from exc
        finally:
            connection.close()
        passed = [
            (name, value)
            for name, value in response.getheaders()
            if name.lower() == "content-type" or name.lower() not in _NOT_PASSED_ON
        ]
        return response.status, passed, answer


class InferenceHandler(_Handler):
    """Passes requests on, with bodies whole and of a type that Triton does not parse."""

    def read_request(self) -> bytes | None:
        """Read the body. Raises `_Refused` for one without a length, or too long."""
        if self.headers.get("Transfer-Encoding") is not None:
            raise _Refused(
                411, "a chunked body is not taken here; send it whole, with its Content-Length"
            )
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths:
            return b"" if self.command == "POST" else None
        if len(lengths) > 1 or not lengths[0].strip().isdecimal():
            raise _Refused(400, f"Content-Length is {', '.join(lengths)!r}, not one number")
        length = int(lengths[0])
        if length > MAX_BODY_BYTES:
            raise _Refused(413, f"a body of {length} bytes is over the {MAX_BODY_BYTES} taken here")
        body = self.rfile.read(length)
        if len(body) < length:
            raise _Refused(400, f"the body ended after {len(body)} of {length} bytes")
        return body


class MetricsHandler(_Handler):
    """Passes `GET /metrics` on, and nothing else; no body is ever read."""

    def read_request(self) -> bytes | None:
        """Raise `_Refused` for all but that one request."""
        if self.command != "GET":
            raise _Refused(405, "only GET /metrics is answered here")
        if self.path.partition("?")[0] != "/metrics":
            raise _Refused(404, f"there is no {self.path} here, only /metrics")
        if self.headers.get("Transfer-Encoding") or self.headers.get("Content-Length", "0") != "0":
            raise _Refused(400, "GET /metrics takes no body")
        return None


@contextmanager
def open_gate(listener: socket.socket, triton: Path, handler: type[_Handler]) -> Iterator[None]:
    """Answer on `listener` while the context lasts, from what listens on the socket `triton`."""
    with _Gate(listener, triton, handler) as gate:
        thread = Thread(target=gate.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            gate.shutdown()
            thread.join()
