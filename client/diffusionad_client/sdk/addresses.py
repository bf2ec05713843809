"""The addresses of servers: HOST:PORT, or what gRPC itself can dial.

plant:8001                      one server
a:8001,b:8001                   two
dns:///triton.plant:8001        gRPC's own scheme: one name, perhaps of several servers
ipv4:10.0.0.1:8001,10.0.0.2:8001    so are these, for gRPC spreads the calls itself
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from diffusionad_client.errors import AddressError, shown

DEFAULT_URL = "127.0.0.1:8001"

_ADDRESS = re.compile(r"(\[[^\]]+\]|[^:/\[\]]+):(\d{1,5})")
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")  # gRPC's own
_FOREIGN_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SECURE = ("https", "grpcs", "tls")
_LAST_PORT = 65535
_GIVE = "give HOST:PORT of its gRPC service, such as 127.0.0.1:8001"


def read_servers(url: str | Sequence[str]) -> tuple[str, ...]:
    """Give each server once, in the order of `url`: an address, several with commas, or a list.

    Raises `AddressError` for one that cannot be dialled, or if there is none.
    """
    if isinstance(url, str):
        given = [url] if url.startswith(_SCHEMES) else url.split(",")
    elif isinstance(url, Sequence) and not isinstance(url, (bytes, bytearray)):
        given = list(url)
    else:
        raise AddressError(f"{shown(url)} is not a server's address; {_GIVE}")
    if not given:
        raise AddressError(f"no server is named; {_GIVE}")
    return tuple(dict.fromkeys(check_url(each) for each in given))


def check_url(url: str) -> str:
    """Return `url` if gRPC can dial it: HOST:PORT or one of gRPC's own schemes."""
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise AddressError(f"{shown(url)} is not a server's address; {_GIVE}")
    if url.startswith(_SCHEMES):
        ports = [int(port) for port in re.findall(r":(\d+)(?=,|$)", url)]
    else:
        address = _ADDRESS.fullmatch(url)
        if address is None or not url.isascii():
            raise AddressError(f"{shown(url)} is not a server's address{_why(url)}; {_GIVE}")
        ports = [int(address[2])]
    for port in ports:
        if not 1 <= port <= _LAST_PORT:
            raise AddressError(
                f"{shown(url)}: a port lies between 1 and {_LAST_PORT}, not at {port}"
            )
    return url


def is_loopback(server: str) -> bool:
    """Tell whether a server is on this machine, so that nothing on a network can listen in."""
    if server.startswith(("unix:", "unix-abstract:")):
        return True
    if server.startswith("xds:"):
        return False
    return all(_is_loopback_host(host) for host in hosts(server))


def hosts(server: str) -> list[str]:
    """Name the hosts of an address, without their ports; IPv6 without its brackets."""
    listed = server.partition(":")[2].split(",") if server.startswith(_SCHEMES) else [server]
    found = []
    for each in listed:
        address = each.rpartition("/")[2]  # dns:///NAME, or dns://RESOLVER/NAME
        host, colon, port = address.rpartition(":")
        found.append((host if colon and port.isdigit() else address).strip("[]"))
    return found


def _is_loopback_host(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _why(url: str) -> str:
    if (scheme := _FOREIGN_SCHEME.match(url)) is not None:
        secure = ", and tls=True or --tls" if scheme[1].lower() in _SECURE else ""
        return f", which has no scheme ({scheme[0]}){secure}"
    if "/" in url:
        return ", which has no path"
    if not url:
        return ""
    return "" if re.search(r":\w*$", url) else ", whose port is missing"
