"""Which of client and server is wrong when they find no secure connection.

gRPC passes on OpenSSL's words for what the client refuses. Where the server
refuses, or speaks TLS to a client that does not, it says "Socket closed", as
it says of a server that dies. Then a handshake of our own tells: see `ask_why`.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from datetime import datetime, timezone
from urllib.parse import unquote

from diffusionad_client.errors import CredentialsError, TLSError
from diffusionad_client.sdk.addresses import hosts, is_loopback
from diffusionad_client.sdk.credentials import Credentials

_LONGEST_S = 2.0  # for a handshake of our own; one takes milliseconds

# What OpenSSL and gRPC call it, and what that means. The first that is found counts.
_MEANINGS = tuple(
    (re.compile(words, re.IGNORECASE), meaning)
    for words, meaning in (
        (
            r"hostname verification|hostname mismatch|ip address mismatch",
            "the server's certificate is made out to other names than this one; call the server "
            "by a name that is in its certificate, or have one made that has this name too",
        ),
        (
            r"alert[ _](number 45|certificate[ _]expired)",
            "the server refuses the client's certificate, because it has expired; have a new one "
            "made and give it with client_cert= (--client-cert)",
        ),
        (
            r"certificate[ _]required|peer did not return a certificate",
            "the server lets in only clients that show a certificate; give client_cert= and "
            "client_key= (--client-cert, --client-key)",
        ),
        (
            r"alert[ _](unknown[ _]ca|bad[ _]certificate|certificate[ _]unknown|access[ _]denied)",
            "the server refuses the client's certificate; give one that an authority of the "
            "server's has signed, with client_cert= (--client-cert)",
        ),
        (
            r"certificate has expired",
            "the server's certificate, or one that it was signed with, has expired; have a new "
            "one made for the server, and check this machine's clock",
        ),
        (
            r"certificate is not yet valid",
            "the server's certificate is not valid yet; check this machine's clock and the "
            "server's",
        ),
        (
            r"unable to get (local )?issuer|self.signed certificate|unknown ca|"
            r"certificate signature failure|invalid ca certificate",
            "no authority that is trusted here has signed the server's certificate; give the one "
            "that did, with ca_cert= (--ca-cert)",
        ),
        (
            r"wrong[ _]version[ _]number|http[ _]request|record[ _]layer[ _]failure",
            "what listens there does not speak TLS; leave out ca_cert=, client_cert= and tls= "
            "(--ca-cert, --client-cert, --tls), or give the port that does",
        ),
        (
            r"missing selected alpn|no[ _]application[ _]protocol",
            "what listens there speaks TLS, but not gRPC, as an HTTPS port does not; give the "
            "port of Triton's gRPC service, usually 8001",
        ),
    )
)
_OF_A_HANDSHAKE = re.compile(r"(tls|ssl) handshake failed|CERTIFICATE_VERIFY_FAILED", re.IGNORECASE)
_UNCLEAR = re.compile(
    r"socket closed|connection reset|broken pipe|recvmsg|stream removed|end of file",
    re.IGNORECASE,
)
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # as gRPC reads them
_PEER = re.compile(r"ipv[46]:(\S+):(\d+)")  # of IPv6, the brackets are written %5B and %5D


def tls_failure(message: str, about: str) -> TLSError | None:
    """Read the error out of gRPC's message; None if that says nothing of TLS."""
    for words, meaning in _MEANINGS:
        if words.search(message):
            return TLSError(f"{about}: {meaning}")
    if _OF_A_HANDSHAKE.search(message):
        return TLSError(f"{about}: client and server find no secure connection: {message}")
    return None


def may_be_tls(message: str) -> bool:
    """Tell whether a server that never answered may have closed the line because of TLS."""
    return _UNCLEAR.search(message) is not None


def ask_why(
    message: str, server: str, credentials: Credentials, about: str, timeout: float
) -> TLSError | None:
    """Try a handshake with the server that gRPC's message names, and tell what is wrong with it.

    None if nothing is, or no server answers. Takes at most `timeout` seconds, and never more
    than two. It blocks: an event loop gives it to a thread.
    """
    peer = _PEER.search(message)
    behind_proxy = any(map(os.environ.get, _PROXIES)) and not is_loopback(server)
    if peer is None or behind_proxy:  # no address was found at all, or it is the proxy's
        return None
    end = time.monotonic() + min(timeout, _LONGEST_S)
    address = unquote(peer[1]).strip("[]"), int(peer[2])
    try:
        context = credentials.handshake_context()
        if context is None:
            return _speaks_tls(address, about, end)
        return _refuses(address, hosts(server)[0], context, credentials, about, end)
    except CredentialsError as exc:  # the files are not what they were
        return TLSError(f"{about}: {exc}")


def _speaks_tls(address: tuple[str, int], about: str, end: float) -> TLSError | None:
    """Tell whether a server that was called in plain text speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _shaken_hands(address, context, None, end):
            pass
    except OSError:
        return None
    return TLSError(
        f"{about}: the server speaks TLS; give the certificate of its authority with ca_cert= "
        "(--ca-cert), or tls=True (--tls) if this machine trusts that authority"
    )


def _refuses(
    address: tuple[str, int],
    host: str,
    context: ssl.SSLContext,
    credentials: Credentials,
    about: str,
    end: float,
) -> TLSError | None:
    """Tell whether a server that speaks TLS refuses this client."""
    try:
        line = _shaken_hands(address, context, host, end)
    except ssl.SSLError as exc:
        return tls_failure(str(exc), about)
    except OSError:  # it hangs up on whoever calls
        return None
    with line:
        line.settimeout(_left(end))
        # TLS 1.3: the client is done before the server has looked at its certificate. A gRPC
        # server speaks first; one that hangs up without a word did not like it.
        try:
            if line.recv(1):
                return None
        except ssl.SSLError as exc:
            return tls_failure(str(exc), about)
        except ConnectionError:
            pass
        except OSError:  # it took too long
            return None
    validity = credentials.client_validity()
    if validity is None:
        return tls_failure("peer did not return a certificate", about)
    expired = validity.until < datetime.now(timezone.utc)
    return tls_failure("alert certificate expired" if expired else "alert unknown ca", about)


def _shaken_hands(
    address: tuple[str, int], context: ssl.SSLContext, host: str | None, end: float
) -> ssl.SSLSocket:
    line = socket.create_connection(address, timeout=_left(end))
    try:
        line.settimeout(_left(end))
        return context.wrap_socket(line, server_hostname=host)
    except BaseException:
        line.close()
        raise


def _left(end: float) -> float:
    return max(end - time.monotonic(), 0.001)
