"""Run `diffusionad serve` as a subprocess, for commands that are given a folder instead of a URL.

The server is another distribution; it is reached by its command alone. It
prints `READY_PREFIX` and its gRPC address on standard output once all models
are ready, and it stops when its standard input closes, so that it never
outlives the process that started it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO

from diffusionad_client.distributions import install_hint
from diffusionad_client.errors import ServeError, ServerUnavailableError

READY_PREFIX = "Ready for gRPC on "  # followed by HOST:PORT and the end of the line

STARTUP_S = 600.0  # loading and warming up many models on a CPU takes minutes
GRACE_S = 15.0  # for the server to stop by itself
_POLL_S = 0.2
_LAST_LINES = 15


@contextmanager
def serve_repository(
    repository: Path, *, startup_s: float = STARTUP_S, grace_s: float = GRACE_S
) -> Iterator[str]:
    """Serve a model repository while the context lasts; yields the gRPC address, HOST:PORT.

    Raises `ServeError` with the server's own last words if it does not start,
    or if it dies while the context lasts.
    """
    command = serve_command(repository, startup_s)
    with tempfile.TemporaryFile() as stderr:
        server = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            # In a session of its own, so that a Ctrl-C meant for this command
            # does not stop the server under requests that are still running.
            start_new_session=True,
        )
        try:
            yield _wait_until_ready(server, stderr, startup_s)
        except ServerUnavailableError as exc:
            if server.poll() is None:
                raise
            died = _died(server, stderr, "stopped during the run")
            raise ServeError(f"{died}\n{exc}") from exc  # which says how far the run came
        finally:
            _stop(server, grace_s)


def serve_command(repository: Path, startup_s: float = STARTUP_S) -> list[str]:
    """Give the command line that serves `repository`, in this very environment."""
    if not any(entry_points(group="diffusionad.commands", name="serve")):
        raise ServeError(
            f"serving {repository} needs diffusionad-tools, which is not installed here; name a "
            f"running server with --url, or {install_hint('diffusionad-tools')}"
        )
    return [
        *(sys.executable, "-m", "diffusionad_client", "serve"),
        *("--repository", str(repository)),
        *("--grpc-port", "0", "--metrics-port", "0"),
        *("--ready-timeout", str(startup_s)),
        "--stop-on-stdin-eof",
    ]


def _wait_until_ready(server: subprocess.Popen[bytes], stderr: IO[bytes], startup_s: float) -> str:
    address: SimpleQueue[str] = SimpleQueue()
    # Reads to the end, so that a server which goes on talking never blocks on a full pipe.
    Thread(target=_read_stdout, args=(server.stdout, address), daemon=True).start()
    end = time.monotonic() + startup_s
    while time.monotonic() < end:
        exited = server.poll() is not None  # before the queue: its last line may be in there
        try:
            return address.get(timeout=_POLL_S)
        except Empty:
            if exited:
                raise _died(server, stderr, "did not start") from None
    raise _died(server, stderr, f"was not ready after {startup_s:g} s")


def _read_stdout(stdout: IO[bytes], address: SimpleQueue[str]) -> None:
    with stdout:
        for line in stdout:
            text = line.decode("utf-8", "replace")
            if text.startswith(READY_PREFIX):
                address.put(text.removeprefix(READY_PREFIX).strip())


def _died(server: subprocess.Popen[bytes], stderr: IO[bytes], what: str) -> ServeError:
    code = server.poll()
    stderr.seek(0)
    lines = stderr.read().decode("utf-8", "replace").strip().splitlines()[-_LAST_LINES:]
    reason = "\n".join(lines).removeprefix("Error: ") or "it gave no reason"
    ending = "" if code is None else f" (exit code {code})"
    return ServeError(f"the embedded server {what}{ending}: {reason}")


def _stop(server: subprocess.Popen[bytes], grace_s: float) -> None:
    if server.stdin is not None:
        with suppress(BrokenPipeError):  # it may be gone already
            server.stdin.close()
    for ask_harder in (server.terminate, server.kill):
        try:
            server.wait(grace_s)
        except subprocess.TimeoutExpired:
            ask_harder()
    server.wait()
