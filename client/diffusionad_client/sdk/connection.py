"""How a server, or several, is reached: all of it in one value, checked when it is made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusionad_client.errors import ArgumentError, CredentialsError, shown
from diffusionad_client.sdk.addresses import DEFAULT_URL, check_url, is_loopback, read_servers
from diffusionad_client.sdk.admin_key import check_admin_key
from diffusionad_client.sdk.deadline import check_timeout
from diffusionad_client.sdk.headers import AUTHORIZATION, check_name, check_token, check_value

__all__ = ["CALL_S", "DEFAULT_URL", "Connection", "check_url"]

CALL_S = 30.0


@dataclass(frozen=True)
class Connection:
    """What a client needs to know of its servers before it calls one.

    `url` is a gRPC address, HOST:PORT, several of them with commas between or
    as a list, or one of gRPC's own schemes. `servers` has each of them once.

    Any of `ca_cert`, `client_cert` and `tls` makes the connection one of TLS.
    Without `ca_cert` it trusts the authorities that this machine trusts. With
    `client_cert` and `client_key`, PEM files, the client shows who it is. A
    bearer token and any header go with every call; those in files, as the
    certificates, are read again when the files change. No message, log or
    `repr` shows a secret.

    Without TLS, whatever leaves this machine can be read on its way: a token
    or a header is sent so only with `insecure=True`. Raises `AddressError`,
    `CredentialsError`, `AdminKeyError` or `ArgumentError`; files are read when
    a client is made.
    """

    url: str | Sequence[str] = DEFAULT_URL
    timeout: float = field(default=CALL_S, kw_only=True)  # s, for all that one call asks
    # TLS
    ca_cert: Path | str | None = field(default=None, kw_only=True)  # who signed the servers'
    client_cert: Path | str | None = field(default=None, kw_only=True)  # with its chain
    client_key: Path | str | None = field(default=None, kw_only=True)
    tls: bool = field(default=False, kw_only=True)
    # secrets, of which each comes as a value or as a file
    token: str | None = field(default=None, kw_only=True, repr=False)
    token_file: Path | str | None = field(default=None, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False, hash=False)
    header_files: Mapping[str, Path | str] = field(default_factory=dict, kw_only=True, hash=False)
    # Opens the repository of a server that keeps it closed.
    admin_key: str | None = field(default=None, kw_only=True, repr=False)
    insecure: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        servers = read_servers(self.url)
        self._set("url", servers[0] if len(servers) == 1 else servers)
        check_timeout(self.timeout)
        self._check_tls()
        self._check_headers()
        if self.admin_key is not None:
            check_admin_key(self.admin_key)
        if self._secret_headers and self.plaintext_servers and not self.insecure:
            raise CredentialsError(
                f"{', '.join(self.plaintext_servers)}: without TLS, all on the way can read the "
                "token or header that is sent; give ca_cert= or tls=True (--ca-cert, --tls), or "
                "insecure=True (--insecure) on a network where that is no harm"
            )

    @property
    def servers(self) -> tuple[str, ...]:
        """The address of each server, once."""
        return read_servers(self.url)

    @property
    def address(self) -> str:
        """The servers in one line, for messages."""
        return ",".join(self.servers)

    @property
    def _secret_headers(self) -> frozenset[str]:
        """The names of the headers that go with every call, in small letters."""
        bearer = {AUTHORIZATION} if self.token or self.token_file else set()
        return frozenset(bearer | {name.lower() for name in (*self.headers, *self.header_files)})

    @property
    def plaintext_servers(self) -> tuple[str, ...]:
        """The servers that are not on this machine, if they are reached without TLS."""
        return () if self.tls else tuple(s for s in self.servers if not is_loopback(s))

    def _check_tls(self) -> None:
        for name in ("ca_cert", "client_cert", "client_key", "token_file"):
            if (path := getattr(self, name)) is not None:
                self._set(name, _path(name, path))
        if (self.client_cert is None) != (self.client_key is None):
            there, lacking = "client_cert", "client_key"
            if self.client_cert is None:
                there, lacking = lacking, there
            raise CredentialsError(
                f"{there} {getattr(self, there)} is of use only with {lacking}; give both, the "
                "same file twice if it holds both"
            )
        for name in ("tls", "insecure"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(f"{name} is True or False, not {shown(getattr(self, name))}")
        self._set("tls", self.tls or self.ca_cert is not None or self.client_cert is not None)

    def _check_headers(self) -> None:
        for name in ("headers", "header_files"):
            if not isinstance(getattr(self, name), Mapping):
                raise ArgumentError(f"{name} are given as a mapping, such as {{'x-api-key': ...}}")
        names = [*self.headers, *self.header_files]
        self._set("headers", {check_name(n): check_value(n, v) for n, v in self.headers.items()})
        files = {check_name(n): _path(n, path) for n, path in self.header_files.items()}
        self._set("header_files", files)
        if self.token is not None:
            check_token(self.token)
            names.append(AUTHORIZATION)
        if self.token_file is not None:
            names.append(AUTHORIZATION)
        lower = [name.lower() for name in names]
        for name in lower:
            if lower.count(name) > 1:
                raise CredentialsError(
                    f"the header {name!r} is given more than once; a token is the header "
                    f"{AUTHORIZATION!r}"
                )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _path(name: str, value: object) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ArgumentError(f"{name} is the path of a file, not {shown(value)}")
    return Path(os.fspath(value))
