"""The embedded Triton as a process: start it, wait until it serves, stop it.

    with running_server(ServerSettings(repository=Path("model_repository"))) as server:
        ...  # gRPC answers on server.grpc_url

What Triton and its stubs print goes to the log file. A server that fails says
why in one `ServeError`.
"""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from diffusionad_client.errors import ServeError
from diffusionad_client.local_server import STARTUP_S
from diffusionad_client.sdk.admin_key import ADMIN_HEADER
from diffusionad_tools.server import tether
from diffusionad_tools.server.backends import assemble, environment, plain_path
from diffusionad_tools.server.binaries import locate
from diffusionad_tools.server.checks import check_config_name, check_models, check_repository
from diffusionad_tools.server.ports import choose_ports, resolve_host
from diffusionad_tools.server.reasons import failure_reason

_POLL_S = 0.05
_EXIT_TIMEOUT_S = 10  # for requests in flight, when the server is asked to stop
_KILL_AFTER_S = _EXIT_TIMEOUT_S + 10  # Triton unloads its models after that
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class ExplicitControl:
    """Load at start only what is named, and more or less of it when the holder of the key asks.

    Triton takes the key on its command line and in no other way. So whoever may
    list this machine's processes can read it: it keeps the network out, not the
    machine's own users.
    """

    load: Sequence[str] = ()  # models, with those that they are made of; "*" alone is all of them
    admin_key: str | None = None  # None: nobody can load anything later


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What to serve, and where. A port of 0 takes a free one."""

    repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    config_name: str | None = None  # <model>/configs/NAME.pbtxt goes before its config.pbtxt
    log_file: Path | None = None  # default: a temporary file, kept only if something fails
    ready_timeout: float = STARTUP_S  # seconds, for all models to load
    explicit: ExplicitControl | None = None  # None: every model is loaded at start, and stays


class TritonProcess:
    """A started tritonserver. Made by `running_server`, which also stops it."""

    def __init__(self, settings: ServerSettings, folder: Path, log_file: Path) -> None:
        check_repository(settings.repository)
        if settings.explicit is not None:
            check_models(settings.repository, settings.explicit.load)
        if settings.config_name is not None:
            check_config_name(settings.repository, settings.config_name)
        self.log_file = log_file
        self._settings = settings
        address = resolve_host(settings.host)
        # A server bound to every address is reached on this machine's own.
        self._reached_at = "127.0.0.1" if address == "0.0.0.0" else address
        self._ports = choose_ports(
            address,
            {
                "grpc": settings.grpc_port,
                "http": settings.http_port,
                "metrics": settings.metrics_port,
            },
        )
        self._shared_memory_prefix = f"diffusionad-{secrets.token_hex(4)}-"
        triton = locate()
        backends = assemble(folder, triton)
        self._repository = plain_path(settings.repository.resolve(), folder)
        command = [
            *(sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid())),
            str(triton.server),
            *self._arguments(address, backends),
        ]
        with _open_log(log_file) as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command,
                env=environment(folder, triton),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the server in order
            )

    @property
    def grpc_url(self) -> str:
        """Where gRPC answers, as HOST:PORT."""
        return f"{self._reached_at}:{self._ports['grpc']}"

    @property
    def http_url(self) -> str:
        """Where HTTP answers, as HOST:PORT."""
        return f"{self._reached_at}:{self._ports['http']}"

    @property
    def pid(self) -> int:
        """Process id of tritonserver, and of the process group of its stubs."""
        return self._process.pid

    def wait_until_ready(self, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Wait until every model is loaded; return False if `cancelled` came first.

        Raises `ServeError` if the server stops or the time is up.
        """
        deadline = time.monotonic() + self._settings.ready_timeout
        while not cancelled():
            self.check_alive()
            if self._answers_ready():
                return True
            if time.monotonic() > deadline:
                raise ServeError(
                    f"the models in {self._settings.repository} were not ready after "
                    f"{self._settings.ready_timeout:g} s; allow more with --ready-timeout of "
                    f"`diffusionad serve` or `release add`, or read {self.log_file}"
                )
            time.sleep(_POLL_S)
        return False

    def check_alive(self) -> None:
        """Raise `ServeError`, with the server's reason, if it has stopped by itself."""
        status = self._process.poll()
        if status is None:
            return
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            reason = failure_reason(log.read().decode(errors="replace"))
        if reason is None:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with code {status}"
            reason = f"it {how}"
        raise ServeError(f"Triton stopped: {reason} (log: {self.log_file})")

    def stop(self) -> None:
        """Stop the server and its stubs; leave neither a process nor shared memory behind."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_AFTER_S)
        with suppress(ProcessLookupError):  # the group is empty when all went well
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for leftover in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            leftover.unlink(missing_ok=True)

    def _arguments(self, address: str, backends: Path) -> list[str]:
        return [
            f"--model-repository={self._repository}",
            *self._config_choice(),
            f"--backend-directory={backends}",
            *_model_control(self._settings.explicit),
            "--disable-auto-complete-config",  # our configurations are whole; loads are faster
            "--exit-on-error=true",
            f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
            *_restrictions(self._settings.explicit),
            *(f"--{protocol}-address={address}" for protocol in self._ports),
            *(f"--{protocol}-port={port}" for protocol, port in self._ports.items()),
        ]

    def _config_choice(self) -> list[str]:
        name = self._settings.config_name
        return [] if name is None else [f"--model-config-name={name}"]

    def _answers_ready(self) -> bool:
        """Ask over HTTP, which Triton opens after gRPC and which has no back-off of its own."""
        connection = http.client.HTTPConnection(self._reached_at, self._ports["http"], timeout=1)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def started_server(settings: ServerSettings) -> Iterator[TritonProcess]:
    """Start a server, which may not be ready yet, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="diffusionad-triton-") as folder:
        log_file = settings.log_file or _new_log_file()
        server = TritonProcess(settings, Path(folder), log_file)
        try:
            yield server
        finally:
            server.stop()
        if settings.log_file is None:  # all went well, and nobody asked for it
            log_file.unlink(missing_ok=True)


@contextmanager
def running_server(settings: ServerSettings) -> Iterator[TritonProcess]:
    """Start a server, wait until every model is ready, and stop it at the end.

    Raises `ServeError` if it does not come up.
    """
    with started_server(settings) as server:
        server.wait_until_ready()
        yield server


def _model_control(explicit: ExplicitControl | None) -> list[str]:
    if explicit is None:
        return ["--model-control-mode=none", "--strict-readiness=true"]
    return [
        "--model-control-mode=explicit",
        # What is named must load, or the server does not start. Later, one category that
        # cannot be loaded must not take all the others away from a load balancer.
        "--strict-readiness=false",
        *(f"--load-model={name}" for name in explicit.load),
    ]


def _restrictions(explicit: ExplicitControl | None) -> list[str]:
    """Close the calls that change a server, on both protocols."""
    # Nobody learns the key: these calls are of no use here, and two of this
    # server version's known holes start with registering shared memory.
    closed = [f"shared-memory,trace,logging:diffusionad-key={secrets.token_hex(16)}"]
    if explicit is not None:
        key = explicit.admin_key or secrets.token_hex(16)
        closed.append(f"model-repository:{ADMIN_HEADER}={key}")
    return [
        f"--{option}={calls}"
        for option in ("grpc-restricted-protocol", "http-restricted-api")
        for calls in closed
    ]


def _new_log_file() -> Path:
    """Name a log file in the temporary directory that does not exist yet."""
    return Path(tempfile.gettempdir(), f"diffusionad-serve-{secrets.token_hex(4)}.log")


@contextmanager
def _open_log(path: Path) -> Iterator[BinaryIO]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("ab")
    except OSError as exc:
        raise ServeError(f"--log-file {path}: cannot be written: {exc.strerror}") from exc
    with log:
        yield log
