"""`diffusionad serve`: an embedded Triton on a model repository, until it is told to stop."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from diffusionad_client.commands.log_lines import log_format
from diffusionad_client.commands.options import SECONDS
from diffusionad_client.errors import ServeError
from diffusionad_client.local_server import STARTUP_S
from diffusionad_client.sdk.admin_key import ensure_admin_key
from diffusionad_tools.commands.release.options import trusted_keys as trusted_keys_option
from diffusionad_tools.commands.serve_log import ServeLog, open_log
from diffusionad_tools.folders import passing_over, strays
from diffusionad_tools.server.checks import DEFAULT, choose_config
from diffusionad_tools.server.ports import is_loopback, resolve_host
from diffusionad_tools.server.process import (
    Encryption,
    ExplicitControl,
    ServerSettings,
    TritonProcess,
)
from diffusionad_tools.server.service_manager import tell_ready
from diffusionad_tools.server.site import Site, open_site
from diffusionad_tools.server.stopping import stop_requests
from diffusionad_tools.server.supervisor import MAX_RESTARTS, WITHIN_S, Restarts, Supervisor

_PORT = click.IntRange(0, 65535)
_FILE = click.Path(dir_okay=False, path_type=Path)
_FREE = "0 takes a free one."


@click.command()
@click.option(
    "--repository", required=True, type=click.Path(path_type=Path), help="Models to serve."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--unsafe-bind",
    is_flag=True,
    help="Allow an address that other machines can reach. Put a gateway in front.",
)
@click.option("--grpc-port", type=_PORT, default=8001, show_default=True, help=_FREE)
@click.option("--http-port", type=_PORT, help=f"{_FREE} [default: no HTTP]")
@click.option(
    "--metrics-port", type=_PORT, default=8002, show_default=True, help=f"For GET /metrics; {_FREE}"
)
@click.option(
    "--model-config-name",
    metavar="NAME",
    help="Kind of host: models use their configs/NAME.pbtxt, if they have one; `default` is "
    "config.pbtxt. [default: cpu on a host without a GPU, else config.pbtxt]",
)
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where Triton's log goes. [default: a temporary file, kept only if something fails]",
)
@log_format(
    "Of all lines. json: an object a line; Triton's are among those on standard error, or in "
    "--log-file."
)
@click.option(
    "--ready-timeout",
    type=SECONDS,
    default=STARTUP_S,
    show_default=True,
    help="Seconds for all models to load.",
)
@click.option(
    "--model-control-mode",
    "control",
    type=click.Choice(["none", "explicit"]),
    default="none",
    show_default=True,
    help="none: every model, at start only. explicit: what --load-model names, and what the "
    "holder of the admin key asks for later.",
)
@click.option("--load-model", "load", multiple=True, metavar="NAME", help="May be repeated.")
@click.option(
    "--admin-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Key for loading, unloading and listing models; made, for its owner only, if missing.",
)
@click.option(
    "--tls-cert",
    type=_FILE,
    metavar="FILE",
    help="Speak TLS for gRPC, with this PEM certificate and its chain. Not together with HTTP; "
    "metrics then stay on loopback.",
)
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's key, as PEM.")
@click.option(
    "--tls-client-ca",
    type=_FILE,
    metavar="FILE",
    help="Let in only clients with a certificate that this authority signed.",
)
@click.option(
    "--trace-url",
    metavar="URL",
    help="Send a span of each request to this OpenTelemetry collector (OTLP over HTTP), such as "
    "http://127.0.0.1:4318/v1/traces. They join those of clients that send theirs.",
)
@click.option(
    "--verify",
    "is_verified",
    is_flag=True,
    help="Before anything is loaded, hold every graph against the digest that its release was "
    "published with; refuse the repository if one differs.",
)
@trusted_keys_option
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    default=MAX_RESTARTS,
    show_default=True,
    help=f"How often a failed server is started again within {WITHIN_S / 60:g} minutes.",
)
@click.option(
    "--probe-every",
    type=SECONDS,
    metavar="SECONDS",
    help="Send a grey image through each category so often, and start the server again if one "
    "gives no answer in twice that time: it hangs. [default: never]",
)
@click.option(
    "--stop-on-stdin-eof",
    is_flag=True,
    help="Stop when standard input closes, as it does when the process that started this one ends.",
)
def serve(
    repository: Path,
    host: str,
    unsafe_bind: bool,
    grpc_port: int,
    http_port: int | None,
    metrics_port: int,
    model_config_name: str | None,
    log_file: Path | None,
    log_format: str,
    ready_timeout: float,
    control: str,
    load: tuple[str, ...],
    admin_key_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    trace_url: str | None,
    is_verified: bool,
    trusted_keys: tuple[Path, ...],
    max_restarts: int,
    probe_every: float | None,
    stop_on_stdin_eof: bool,
) -> None:
    """Serve a model repository with an embedded Triton Inference Server.

    When its models are ready, prints its gRPC address on standard output, and
    tells systemd so in a unit of Type=notify. Should a process of the server die,
    everything is started again on the same ports. Stop it with Ctrl-C.

    \b
    Example:
      diffusionad serve --repository model_repository
      diffusionad serve --repository model_repository --model-control-mode explicit
        --load-model screw --admin-key-file admin.key
      diffusionad serve --repository model_repository --verify
      diffusionad serve --repository model_repository --tls-cert server.pem
        --tls-key server.key --tls-client-ca ca.pem
    """
    tls = _encryption(tls_cert, tls_key, tls_client_ca)
    with ExitStack() as stack:
        log = stack.enter_context(open_log(log_format, log_file))
        stack.enter_context(log.errors())
        _check_bind(host, unsafe_bind, tls, log)
        if is_verified or trusted_keys:
            _verify(repository, trusted_keys, log)
        settings = ServerSettings(
            repository=repository,
            host=host,
            grpc_port=grpc_port,
            http_port=http_port,
            metrics_port=metrics_port,
            config_name=_config_name(repository, model_config_name, log),
            log_file=log_file,
            records=log.records,
            ready_timeout=ready_timeout,
            explicit=_explicit(control, load, admin_key_file),
            tls=tls,
            traces=trace_url,
            probe_every=probe_every,
        )
        stop = stack.enter_context(stop_requests(stop_on_stdin_eof))
        site = stack.enter_context(open_site(settings))
        log.say(f"Starting Triton on {repository}; its log: {site.log.place}")
        if left := strays(repository):
            log.say(passing_over(left))
        supervisor = Supervisor(site, Restarts(max_restarts), log.say)
        supervisor.run(stop, lambda server: _announce(site, server, log))


def _verify(repository: Path, trusted_keys: tuple[Path, ...], log: ServeLog) -> None:
    from diffusionad_tools.release.keys import read_trusted_keys
    from diffusionad_tools.release.verify import verified  # takes its time, and few ask for it

    log.say(verified(repository, read_trusted_keys(trusted_keys)))


def _announce(site: Site, server: TritonProcess, log: ServeLog) -> None:
    tls = site.settings.tls
    if tls is not None:
        whom = (
            "any client" if tls.client_ca is None else f"clients that {tls.client_ca} vouches for"
        )
        log.say(f"gRPC with TLS, for {whom}.")
    if site.http_port is not None:
        log.say(f"HTTP on {server.http_url}, through a filter: see docs/serving.md.")
    explicit = site.settings.explicit
    if explicit is not None and not explicit.load:
        log.say(
            "No model is loaded yet: `diffusionad models load NAME` loads one, with "
            f"--url {server.grpc_url} and the admin key's file."
        )
    log.ready(server.grpc_url)
    tell_ready()


def _config_name(repository: Path, wanted: str | None, log: ServeLog) -> str | None:
    if wanted is not None:
        return None if wanted == DEFAULT else wanted
    chosen = choose_config(repository)
    if chosen is not None:
        log.say(
            f"No GPU here: models use configs/{chosen}.pbtxt "
            f"(--model-config-name {DEFAULT} for config.pbtxt)."
        )
    return chosen


def _explicit(
    control: str, load: tuple[str, ...], admin_key_file: Path | None
) -> ExplicitControl | None:
    if control == "explicit":
        if not load and admin_key_file is None:
            raise click.UsageError(
                "--model-control-mode explicit loads what --load-model names and what the holder "
                "of the admin key asks for; give --load-model, --admin-key-file or both, or "
                "nothing is ever loaded"
            )
        key = None if admin_key_file is None else ensure_admin_key(admin_key_file)
        return ExplicitControl(load=load, admin_key=key)
    if load or admin_key_file is not None:
        raise click.UsageError(
            "--load-model and --admin-key-file are for --model-control-mode explicit"
        )
    return None


def _encryption(
    certificate: Path | None, key: Path | None, client_ca: Path | None
) -> Encryption | None:
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("TLS takes both --tls-cert and --tls-key")
    return Encryption(certificate=certificate, key=key, client_ca=client_ca)


def _check_bind(host: str, unsafe_bind: bool, tls: Encryption | None, log: ServeLog) -> None:
    if is_loopback(resolve_host(host)):
        return
    lets_in_anyone = tls is None or tls.client_ca is None
    if not unsafe_bind:
        lacking = "has no access control" if lets_in_anyone else "has known security holes"
        raise ServeError(
            f"--host {host} can be reached from other machines, and this server {lacking}; add "
            "--unsafe-bind if that is wanted, better put a gateway in front"
        )
    lacking = "security holes and no access control" if lets_in_anyone else "security holes"
    log.say(
        f"Warning: {host} can be reached from other machines. The embedded Triton has known "
        f"{lacking}; do not leave it open to a network you do not trust.",
        "warning",
    )
