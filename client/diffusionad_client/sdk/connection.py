"""How a server is reached: all of it in one value, checked when it is made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from diffusionad_client.errors import AddressError, shown
from diffusionad_client.sdk.admin_key import check_admin_key
from diffusionad_client.sdk.deadline import check_timeout

DEFAULT_URL = "127.0.0.1:8001"
CALL_S = 30.0

_ADDRESS = re.compile(r"(\[[^\]]+\]|[^:/]+):(\d{1,5})")
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")  # gRPC's own
_LAST_PORT = 65535


@dataclass(frozen=True)
class Connection:
    """What a client needs to know of a server before it calls it.

    `url` is the server's gRPC address, HOST:PORT, or one of gRPC's own
    schemes, which may name several. Raises `AddressError`, `AdminKeyError` or
    `ArgumentError`.
    """

    url: str = DEFAULT_URL
    timeout: float = field(default=CALL_S, kw_only=True)  # s, for all that one call asks
    # Opens the repository of a server that keeps it closed; no message ever shows it.
    admin_key: str | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        check_url(self.url)
        check_timeout(self.timeout)
        if self.admin_key is not None:
            check_admin_key(self.admin_key)


def check_url(url: str) -> str:
    """Return `url` if gRPC can dial it: HOST:PORT or one of gRPC's own schemes."""
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise AddressError(f"{shown(url)} is not a server's address; {_GIVE}")
    if url.startswith(_SCHEMES):
        ports = [int(port) for port in re.findall(r":(\d+)(?=,|$)", url)]
    else:
        address = _ADDRESS.fullmatch(url)
        if address is None or not url.isascii():
            raise AddressError(f"{shown(url)} is not a server's address; {_GIVE}")
        ports = [int(address[2])]
    for port in ports:
        if not 1 <= port <= _LAST_PORT:
            raise AddressError(
                f"{shown(url)}: a port lies between 1 and {_LAST_PORT}, not at {port}"
            )
    return url


_GIVE = "give HOST:PORT of its gRPC service, such as 127.0.0.1:8001"
