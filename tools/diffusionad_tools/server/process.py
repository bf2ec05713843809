"""The embedded Triton as a process: start it, wait until it serves, stop it.

    with running_server(ServerSettings(repository=Path("model_repository"))) as server:
        ...  # gRPC answers on server.grpc_url

What Triton and its stubs print goes to the log file. A server that fails says
why in one `ServeError`. One that fails *later* stays down here; `supervisor`
brings it back.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from diffusionad_client.errors import ServeError
from diffusionad_tools.server import arguments, die_with_parent, linux, private_line
from diffusionad_tools.server.log import FileLog
from diffusionad_tools.server.ports import is_loopback
from diffusionad_tools.server.reasons import failure_reason
from diffusionad_tools.server.site import (
    Encryption,
    ExplicitControl,
    ServerSettings,
    Site,
    open_site,
)
from diffusionad_tools.server.watch import Watch, how_it_ended

__all__ = [
    "Encryption",
    "ExplicitControl",
    "ServerSettings",
    "TritonProcess",
    "running_server",
    "started_server",
]

_POLL_S = 0.05
_ANSWER_S = 1.0  # for "are you ready?"
_STARTS = 3  # of a server that does not come up
_KILL_AFTER_S = arguments.EXIT_TIMEOUT_S + 10  # Triton unloads its models after that
_SHARED_MEMORY = Path("/dev/shm")


class TritonProcess:
    """A started tritonserver. Made by `running_server`, which also stops it.

    One that takes the place of another is told what was loaded `again`.
    """

    def __init__(self, site: Site, *, again: Sequence[str] | None = None) -> None:
        self._site = site
        self._again = again
        self._watch: Watch | None = None  # once all processes are there
        self._ended = False
        self._shared_memory_prefix = f"diffusionad-{secrets.token_hex(4)}-"
        for left in (site.http_socket, site.metrics_socket):  # by the one before
            left.unlink(missing_ok=True)
        command = [
            *(sys.executable, "-I", "-S", str(Path(die_with_parent.__file__)), str(os.getpid())),
            str(site.triton.server),
            *self._arguments(),
        ]
        with site.log.opened() as log:
            self._process = subprocess.Popen(
                command,
                env=site.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the server in order
            )

    def __enter__(self) -> TritonProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def grpc_url(self) -> str:
        """Where gRPC answers, as HOST:PORT."""
        return self._site.grpc_url

    @property
    def http_url(self) -> str:
        """Where HTTP answers, as HOST:PORT, if it was asked for."""
        return f"{self._site.reached_at}:{self._site.http_port}"

    @property
    def metrics_url(self) -> str:
        """Where `/metrics` answers, as HOST:PORT, if they were asked for."""
        return f"{self._site.metrics_reached_at}:{self._site.metrics_port}"

    @property
    def log_file(self) -> Path:
        """The file that Triton prints to. Raises `ServeError` if its records go elsewhere."""
        log = self._site.log
        if not isinstance(log, FileLog):
            raise ServeError(f"this server's log is no file: it goes to {log.place}")
        return log.path

    @property
    def pid(self) -> int:
        """Process id of tritonserver, and of the process group of its stubs."""
        return self._process.pid

    def wait_until_ready(self, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Wait until every model is loaded; return False if `cancelled` came first.

        Raises `ServeError` if the server stops or the time is up.
        """
        settings = self._site.settings
        deadline = time.monotonic() + settings.ready_timeout
        while not cancelled():
            self.check_alive()
            if self._answers_ready():
                self._watch = Watch(self.pid, models_change=settings.explicit is not None)
                return True
            if time.monotonic() > deadline:
                raise ServeError(
                    f"the models in {settings.repository} were not ready after "
                    f"{settings.ready_timeout:g} s; allow more with --ready-timeout of "
                    f"`diffusionad serve` or `release add`, or read its log: {self._site.log.place}"
                )
            time.sleep(_POLL_S)
        return False

    def check_alive(self) -> None:
        """Raise `ServeError`, with the reason, if a process that serving needs is not well."""
        if (fault := self.fault()) is not None:
            raise ServeError(f"{fault} (log: {self._site.log.place})")

    def fault(self) -> str | None:
        """Say what is wrong with the server or with a process of its models; None if nothing is."""
        fault = None if self._watch is None else self._watch.fault()
        status = self._process.poll()  # the later word, and the clearer one, on Triton itself
        if status is None:
            return fault
        reason = None if self._watch is not None else failure_reason(self._site.log.said())
        return f"Triton stopped: {reason or 'it ' + how_it_ended(status)}"

    @property
    def has_crashed(self) -> bool:
        """Whether Triton has ended by a signal, and not by its own decision."""
        status = self._process.poll()
        return status is not None and status < 0

    def stop(self) -> None:
        """Stop the server and its stubs; leave neither a process nor shared memory behind."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_AFTER_S)
        self.kill()

    def kill(self) -> None:
        """Stop everything at once. Calls under way end as those on a server that is gone."""
        if self._ended:  # another group may have its number by now
            return
        self._ended = True
        with suppress(ProcessLookupError):  # the group is empty when all went well
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for leftover in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            leftover.unlink(missing_ok=True)

    def _arguments(self) -> list[str]:
        site = self._site
        settings = site.settings
        explicit, tls = settings.explicit, settings.tls
        load = self._again if explicit is None or self._again is not None else explicit.load
        return [
            *arguments.files(site.repository, site.backends, self._shared_memory_prefix),
            *(
                []
                if settings.config_name is None
                else [f"--model-config-name={settings.config_name}"]
            ),
            *arguments.model_control(load, again=self._again is not None),
            *arguments.restrictions(
                site.keys,
                explicit=explicit is not None,
                statistics=is_loopback(site.address),  # what a plant makes is not everyone's
            ),
            *arguments.endpoints(
                site.address,
                site.grpc_port,
                site.http_socket,
                None if site.metrics_port is None else site.metrics_socket,
            ),
            *([] if tls is None else arguments.encryption(tls.certificate, tls.key, tls.client_ca)),
            *([] if settings.traces is None else arguments.tracing(settings.traces)),
        ]

    def _answers_ready(self) -> bool:
        """Ask over the private line, once it is this very process that listens for gRPC.

        Triton listens when its models are loaded. Until then another server
        may listen on that port.
        """
        site = self._site
        return (
            linux.listens_on(self.pid, site.grpc_port)
            and private_line.is_ready(site.http_socket, timeout=_ANSWER_S)
            and (site.metrics_port is None or _accepts(site.metrics_socket))
        )


@contextmanager
def started_server(settings: ServerSettings) -> Iterator[TritonProcess]:
    """Start a server, which may not be ready yet, and stop it at the end."""
    with open_site(settings) as site, TritonProcess(site) as server:
        yield server


@contextmanager
def running_server(settings: ServerSettings) -> Iterator[TritonProcess]:
    """Start a server, wait until every model is ready, and stop it at the end.

    One that crashes on the way is started again, see `Supervisor.run`. Raises `ServeError` if
    it does not come up.
    """
    with open_site(settings) as site, ready_server(site, _has_crashed) as server:
        yield server


def ready_server(
    site: Site, goes_on: Callable[[TritonProcess], bool], *, again: Sequence[str] | None = None
) -> TritonProcess:
    """Start a server, and wait until every model is ready.

    Of one that does not come up, `goes_on` says whether another is started in its place, three
    in all. Raises `ServeError` if none comes up.
    """
    left = _STARTS
    while True:
        server = TritonProcess(site, again=again)
        try:
            server.wait_until_ready()
        except BaseException as exc:
            left -= 1
            another = left > 0 and isinstance(exc, ServeError) and goes_on(server)
            server.stop()
            if not another:
                raise
        else:
            return server


def _has_crashed(server: TritonProcess) -> bool:
    return server.has_crashed


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0
