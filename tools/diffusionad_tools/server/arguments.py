"""The command line of tritonserver."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusionad_client.sdk.admin_key import ADMIN_HEADER

EXIT_TIMEOUT_S = 10  # for requests in flight, when the server is asked to stop


@dataclass(frozen=True)
class Keys:
    """What calls that change a server are closed with. Drawn once, for as long as it is served."""

    # Of the calls on the repository, which only explicit control closes.
    admin: str = field(default_factory=lambda: secrets.token_hex(16))
    # Nobody learns this one: these calls are of no use here, and two of this server version's
    # known holes start with registering shared memory.
    unused: str = field(default_factory=lambda: secrets.token_hex(16))


def files(repository: Path, backends: Path, shared_memory_prefix: str) -> list[str]:
    """Say where the models and the backends lie."""
    return [
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--disable-auto-complete-config",  # our configurations are whole; loads are faster
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
    ]


def model_control(load: Sequence[str] | None, *, again: bool) -> list[str]:
    """Load what `load` names, None for everything for good; `again` in place of a dead server."""
    if load is None:
        return [
            "--model-control-mode=none",
            "--strict-readiness=true",
            "--exit-on-error=true",
        ]
    return [
        "--model-control-mode=explicit",
        # What is named must load, or the server does not start. Later, one category that
        # cannot be loaded must not take all the others away from a load balancer.
        "--strict-readiness=false",
        f"--exit-on-error={'false' if again else 'true'}",
        *(f"--load-model={name}" for name in load),
    ]


def restrictions(keys: Keys, *, explicit: bool, statistics: bool) -> list[str]:
    """Close the calls that change a server, on both protocols; and `statistics`, unless open."""
    unused = "shared-memory,trace,logging" + ("" if statistics else ",statistics")
    closed = [f"{unused}:diffusionad-key={keys.unused}"]
    if explicit:
        closed.append(f"model-repository:{ADMIN_HEADER}={keys.admin}")
    return [
        f"--{option}={calls}"
        for option in ("grpc-restricted-protocol", "http-restricted-api")
        for calls in closed
    ]


def endpoints(address: str, grpc_port: int, http: Path, metrics: Path | None) -> list[str]:
    """Listen for gRPC on a port, for HTTP on a Unix socket, for metrics on another, if at all."""
    return [
        f"--grpc-address={address}",
        f"--grpc-port={grpc_port}",
        "--allow-http=true",
        f"--http-address=unix:{http}",
        *(
            ["--allow-metrics=false"]
            if metrics is None
            else ["--allow-metrics=true", f"--metrics-address=unix:{metrics}"]
        ),
    ]


def tracing(url: str) -> list[str]:
    """Send a span of each request, and of each of its steps, to an OpenTelemetry collector."""
    settings = ("mode=opentelemetry", "level=TIMESTAMPS", "rate=1", f"opentelemetry,url={url}")
    return [f"--trace-config={setting}" for setting in settings]


def encryption(certificate: Path, key: Path, client_ca: Path | None) -> list[str]:
    """Speak TLS on the gRPC port; with `client_ca` only to holders of a certificate of its."""
    mutual = [] if client_ca is None else ["--grpc-use-ssl-mutual=true"]
    authority = [] if client_ca is None else [f"--grpc-root-cert={client_ca}"]
    return [
        *("--grpc-use-ssl=true", *mutual),
        *(f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}", *authority),
    ]
