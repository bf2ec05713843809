"""Choose the ports of a server before it starts, so that a taken one is named at once."""

from __future__ import annotations

import errno
import ipaddress
import socket

from diffusionad_client.errors import ServeError

LOOPBACK = "127.0.0.1"


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


def choose_port(address: str, protocol: str, port: int) -> int:
    """Check that a port is free, or choose a free one for 0. Raises `ServeError`.

    Another process may still take it between this check and the server's start.
    """
    with listen(address, protocol, port) as listener:
        chosen: int = listener.getsockname()[1]
    return chosen


def listen(address: str, protocol: str, port: int) -> socket.socket:
    """Listen on a port, on a free one for 0. Raises `ServeError` that names it and the way out."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        listener.bind((address, port))
        listener.listen()  # or else SO_REUSEADDR would let a second one bind
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise ServeError(taken(address, protocol, port)) from exc
        raise ServeError(
            f"cannot listen on {address}:{port} (--{protocol}-port): {exc.strerror}"
        ) from exc
    return listener


def taken(address: str, protocol: str, port: int) -> str:
    """Say that a port is taken, and the way out."""
    return (
        f"port {port} on {address} is taken; stop what uses it, or serve on another: "
        f"--{protocol}-port 0 takes a free one"
    )
