"""Choose the ports of a server before it starts, so that a taken one is named at once."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import ExitStack

from diffusionad_client.errors import ServeError


def resolve_host(host: str) -> str:
    """Return the IPv4 address that `host` names. Raises `ServeError`."""
    try:
        return socket.gethostbyname(host)
    except OSError as exc:
        raise ServeError(
            f"--host {host}: not an IPv4 address, nor a name for one: {exc.strerror or exc}"
        ) from exc


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach `address`."""
    return ipaddress.IPv4Address(address).is_loopback


def choose_ports(address: str, wanted: dict[str, int]) -> dict[str, int]:
    """Check that each wanted port is free, and choose a free one for each 0.

    `wanted` maps a protocol such as "grpc" to its port. Another process may
    still take a port between this check and the server's start.
    """
    with ExitStack() as held:  # all at once, so that none is chosen twice
        return {protocol: _hold(held, address, protocol, port) for protocol, port in wanted.items()}


def _hold(held: ExitStack, address: str, protocol: str, port: int) -> int:
    listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
    try:
        listener.bind((address, port))
        listener.listen()  # or else SO_REUSEADDR would let a second one bind
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise ServeError(
                f"port {port} on {address} is taken; stop what uses it, or serve on another: "
                f"--{protocol}-port 0 takes a free one"
            ) from exc
        raise ServeError(
            f"cannot listen on {address}:{port} (--{protocol}-port): {exc.strerror}"
        ) from exc
    chosen: int = listener.getsockname()[1]
    return chosen
