"""What a connection's files hold: certificates, keys, tokens. Read when made, and as they change.

    credentials = credentials_of(connection)        # reads and checks every file
    channel = grpc.secure_channel(server, credentials.channel_credentials())
    stub.Call(request, metadata=credentials.metadata())
    if credentials.stamp() != stamp: ...            # files changed: make the channel anew

What was read once is used until it can be read anew: certificate and key take
their places one after the other, and a token's file may be empty for a moment.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import grpc

from diffusionad_client.errors import CredentialsError
from diffusionad_client.sdk.admin_key import ADMIN_METADATA
from diffusionad_client.sdk.certificates import Validity, check_authorities, check_pair, validities
from diffusionad_client.sdk.connection import Connection
from diffusionad_client.sdk.headers import AUTHORIZATION, check_token, check_value
from diffusionad_client.sdk.secret_files import read_private, read_public

LOOK_EVERY_S = 1.0  # at files, for a change

Metadata = tuple[tuple[str, str], ...]
Stamp = tuple[tuple[int, int, int], ...]

_Read = TypeVar("_Read")
_log = logging.getLogger(__name__)


def credentials_of(connection: Connection) -> Credentials:
    """Read what a connection's files hold; warn, in the log, of one that others can listen in on.

    Once for a client: its channels share the answer. Raises `CredentialsError`.
    """
    credentials = Credentials(connection)
    if connection.plaintext_servers and not connection.insecure:
        also = ", and use the admin key" if connection.admin_key is not None else ""
        _log.warning(
            "%s: without TLS, all on the way can read and change pictures and verdicts%s; give "
            "ca_cert= or tls=True (--ca-cert, --tls), or insecure=True (--insecure) to hear no "
            "more of this",
            ", ".join(connection.plaintext_servers),
            also,
        )
    return credentials


class Credentials:
    """The secrets of one connection. Threads may share it.

    Its files are looked at once a second.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        tls = [connection.ca_cert, connection.client_cert, connection.client_key]
        headers = [connection.token_file, *connection.header_files.values()]
        self._tls = _Files(_paths(tls), self._read_channel_credentials)
        self._headers = _Files(_paths(headers), self._read_metadata)

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """Give what a channel is made with; None: in plain text.

        A channel to an address that was resolved from a name must say which
        name the server's certificate has to be of, with the channel option
        `grpc.ssl_target_name_override`.
        """
        return self._tls.value()[0]

    def stamp(self) -> Stamp:
        """Give a value that changes when `channel_credentials` does."""
        return self._tls.value()[1]

    def handshake_context(self) -> ssl.SSLContext | None:
        """Give what a handshake like that of a channel is made with; None: in plain text.

        Raises `CredentialsError` if the files are no longer what they were.
        """
        connection = self._connection
        if not connection.tls:
            return None
        # Not `create_default_context`, which newer Pythons make stricter than gRPC is.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])
        try:
            if connection.ca_cert is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(connection.ca_cert)
            if connection.client_cert is not None and connection.client_key is not None:
                context.load_cert_chain(connection.client_cert, connection.client_key, password="")
        except OSError as exc:  # an SSLError is one
            raise CredentialsError(
                f"a certificate or key of this connection can no longer be used: {exc}"
            ) from exc
        return context

    def client_validity(self) -> Validity | None:
        """Tell from when until when the client's certificate is good; None without one."""
        path = self._connection.client_cert
        if path is None:
            return None
        return validities(read_public(Path(path), "the client's certificate"), Path(path))[0]

    def metadata(self) -> Metadata:
        """Give the headers that go with every call."""
        return self._headers.value()[0]

    def admin_metadata(self) -> Metadata:
        """Give the headers that go with calls on the server's repository, besides."""
        key = self._connection.admin_key
        return () if key is None else ((ADMIN_METADATA, key),)

    def _read_channel_credentials(self) -> grpc.ChannelCredentials | None:
        connection = self._connection
        if not connection.tls:
            return None
        authorities = certificate = key = None
        if connection.ca_cert is not None:
            path = Path(connection.ca_cert)
            authorities = read_public(path, "the authority's certificate")
            check_authorities(authorities, path)
        if connection.client_cert is not None and connection.client_key is not None:
            path, key_path = Path(connection.client_cert), Path(connection.client_key)
            certificate = read_public(path, "the client's certificate")
            key = read_private(key_path, "the client's key")
            check_pair(certificate, path, key_path)
        return grpc.ssl_channel_credentials(authorities, key, certificate)

    def _read_metadata(self) -> Metadata:
        connection = self._connection
        found = dict(connection.headers)
        token = connection.token
        if connection.token_file is not None:
            path = Path(connection.token_file)
            token = check_token(_text(read_private(path, "the token")), f"{path}: ")
        if token is not None:
            found[AUTHORIZATION] = f"Bearer {token}"
        for name, file in connection.header_files.items():
            path = Path(file)
            text = _text(read_private(path, f"the header {name!r}"))
            found[name] = check_value(name, text, f"{path}: ")
        return tuple(found.items())


class _Files(Generic[_Read]):
    """What several files say together, read again when one of them has changed."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], _Read]) -> None:
        self._paths = paths
        self._read = read
        self._looking = Lock()
        self._tried = _stamp(paths)
        self._current = (read(), self._tried)
        self._next_look = time.monotonic() + LOOK_EVERY_S

    def value(self) -> tuple[_Read, Stamp]:
        """Give what the files say, and the stamp of what was read."""
        # While one thread looks, the others go on with what is known: a drive may hang.
        if time.monotonic() >= self._next_look and self._looking.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._looking.release()
        return self._current

    def _look(self) -> None:
        self._next_look = time.monotonic() + LOOK_EVERY_S
        now = _stamp(self._paths)
        if now == self._tried:
            return
        self._tried = now
        try:
            value = self._read()
        except CredentialsError as exc:
            _log.warning("what was read before is used on: %s", exc)
            return
        if _stamp(self._paths) == now:  # else one has changed meanwhile, and the next look sees it
            self._current = (value, now)


def _paths(paths: Sequence[Path | str | None]) -> list[Path]:
    return [Path(path) for path in paths if path is not None]


def _stamp(paths: Sequence[Path]) -> Stamp:
    return tuple(_identity(path) for path in paths)


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _text(content: bytes) -> str:
    return content.decode("ascii", errors="replace").strip()
