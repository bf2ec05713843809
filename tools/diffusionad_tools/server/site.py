"""What a server keeps while it is started anew: its ports, its folder, its keys and its log."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from diffusionad_client.errors import ServeError
from diffusionad_client.local_server import STARTUP_S
from diffusionad_tools.server.arguments import Keys
from diffusionad_tools.server.backends import assemble, environment, plain_path, without_strays
from diffusionad_tools.server.binaries import locate
from diffusionad_tools.server.checks import (
    check_collector,
    check_config_name,
    check_encryption,
    check_models,
    check_repository,
    named_models,
)
from diffusionad_tools.server.http_gate import InferenceHandler, MetricsHandler, open_gate
from diffusionad_tools.server.log import FileLog, RecordLog, TritonLog
from diffusionad_tools.server.ports import LOOPBACK, choose_port, listen, resolve_host

_SOCKET_FOLDER_CHARACTERS = 90  # Linux takes 107 for the path of a Unix socket


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
class Encryption:
    """TLS on the gRPC port, from PEM files that Triton reads when it starts.

    With `client_ca`, only clients that show a certificate of that authority are let in.
    """

    certificate: Path  # the server's own, with its chain
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What to serve, and where. A port of 0 takes a free one; None leaves that protocol closed."""

    repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int | None = None
    metrics_port: int | None = None
    config_name: str | None = None  # <model>/configs/NAME.pbtxt goes before its config.pbtxt
    # Where what Triton prints goes. Default: a temporary file, kept only if something fails.
    log_file: Path | None = None
    records: RecordLog | None = None  # in place of a file
    ready_timeout: float = STARTUP_S  # seconds, for all models to load
    explicit: ExplicitControl | None = None  # None: every model is loaded at start, and stays
    tls: Encryption | None = None  # None: plain text
    traces: str | None = None  # where an OpenTelemetry collector takes spans, as a URL
    probe_every: float | None = None  # seconds between images of its own through each category


class Site:
    """All that stays the same when one server takes the place of another."""

    def __init__(self, settings: ServerSettings, folder: Path, log: TritonLog) -> None:
        self.settings = settings
        self.folder = folder
        self.log = log
        self.keep_log = settings.log_file is not None
        self.address = resolve_host(settings.host)
        # A server bound to every address is reached on this machine's own.
        self.reached_at = LOOPBACK if self.address == "0.0.0.0" else self.address
        # Metrics know no TLS. Where the rest is encrypted, they stay on this machine.
        self.metrics_address = self.address if settings.tls is None else LOOPBACK
        self.metrics_reached_at = self.reached_at if settings.tls is None else LOOPBACK
        if settings.traces is not None:
            check_collector(settings.traces)
        explicit = settings.explicit
        self.keys = (
            Keys()
            if explicit is None or explicit.admin_key is None
            else Keys(admin=explicit.admin_key)
        )
        self.triton = locate()
        self.backends = assemble(folder, self.triton)
        self.environment = environment(folder, self.triton)
        repository = settings.repository.resolve()
        if explicit is None:
            repository = without_strays(repository, folder)
        self.repository = plain_path(repository, folder)
        self.grpc_port = 0
        self.http_port: int | None = None
        self.metrics_port: int | None = None
        self.http_socket = Path()
        self.metrics_socket = Path()

    @contextmanager
    def opened(self) -> Iterator[Site]:
        """Take the ports: HTTP's and the metrics' for ourselves, and one for Triton's gRPC."""
        settings = self.settings
        with ExitStack() as gates:
            sockets = self.folder
            if len(str(sockets)) > _SOCKET_FOLDER_CHARACTERS:
                short = tempfile.TemporaryDirectory(prefix="diffusionad-", dir="/tmp")
                sockets = Path(gates.enter_context(short))
            self.http_socket = sockets / "http.socket"
            self.metrics_socket = sockets / "metrics.socket"
            if settings.http_port is not None:
                http = gates.enter_context(listen(self.address, "http", settings.http_port))
                self.http_port = http.getsockname()[1]
                gates.enter_context(open_gate(http, self.http_socket, InferenceHandler))
            if settings.metrics_port is not None:
                metrics = gates.enter_context(
                    listen(self.metrics_address, "metrics", settings.metrics_port)
                )
                self.metrics_port = metrics.getsockname()[1]
                gates.enter_context(open_gate(metrics, self.metrics_socket, MetricsHandler))
            self.grpc_port = choose_port(self.address, "grpc", settings.grpc_port)
            yield self

    @property
    def grpc_url(self) -> str:
        """Where gRPC answers, as HOST:PORT."""
        return f"{self.reached_at}:{self.grpc_port}"


@contextmanager
def open_site(settings: ServerSettings) -> Iterator[Site]:
    """Check what is to be served and make all that a server needs, ports included.

    Raises `ServeError`. A log that nobody asked for goes at the end, if all went well.
    """
    check_repository(settings.repository)
    if settings.explicit is not None:
        check_models(settings.repository, settings.explicit.load)
        load = named_models(settings.repository, settings.explicit.load)
        settings = replace(settings, explicit=replace(settings.explicit, load=load))
    if settings.config_name is not None:
        check_config_name(settings.repository, settings.config_name)
    if settings.tls is not None:
        if settings.http_port is not None:
            raise ServeError(
                "HTTP cannot be encrypted here: leave out --http-port, or --tls-cert and put a "
                "gateway in front that speaks TLS"
            )
        check_encryption(settings.tls.certificate, settings.tls.key, settings.tls.client_ca)
    log = settings.records or FileLog(settings.log_file or _new_log_file())
    with tempfile.TemporaryDirectory(prefix="diffusionad-triton-") as folder:
        site = Site(settings, Path(folder), log)
        with site.opened():
            yield site
    log.close()
    if isinstance(log, FileLog) and not site.keep_log:
        log.path.unlink(missing_ok=True)


def _new_log_file() -> Path:
    """Name a log file in the temporary directory that does not exist yet."""
    return Path(tempfile.gettempdir(), f"diffusionad-serve-{secrets.token_hex(4)}.log")
