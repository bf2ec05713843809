"""TLS between client and server: what works, and which of the two an error names."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme

from diffusionad_client import AsyncClient, Client, Connection, errors
from diffusionad_client.sdk.admin_key import ADMIN_METADATA
from diffusionad_client.sdk.credentials import Credentials
from diffusionad_client.sdk.transports.grpc import GrpcTransport
from diffusionad_client.sdk.transports.tls_failures import ask_why, tls_failure
from diffusionad_client.testing import FakeServer, Received

SECRET = "s3cret-of-the-line"
PAST = {
    "not_before": datetime(2020, 1, 1, tzinfo=timezone.utc),
    "not_after": datetime(2021, 1, 1, tzinfo=timezone.utc),
}
FUTURE = {
    "not_before": datetime(2090, 1, 1, tzinfo=timezone.utc),
    "not_after": datetime(2091, 1, 1, tzinfo=timezone.utc),
}


@pytest.fixture(scope="module")
def files(make_certificates: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


Serve = Callable[..., int]


@pytest.fixture
def heard() -> list[Received]:
    """What the servers of a test were asked."""
    return []


@pytest.fixture
def serve(files: Any, heard: list[Received]) -> Iterator[Serve]:
    """Starts a server with a certificate, in plain text without; gives its port."""
    with ExitStack() as servers:

        def start(cert: trustme.LeafCert | None, *, mutual: bool = False) -> int:
            pair = None
            if cert is not None:
                chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
                pair = (chain, cert.private_key_pem.bytes())
            ca = files.ca.read_bytes() if mutual else None
            server = servers.enter_context(FakeServer(certificate=pair, client_ca=ca))
            server.on_call = heard.append
            return int(server.url.rpartition(":")[2])

        yield start


def ask(connection: Connection) -> None:
    with Client(connection, retry=False) as client:
        client.health()


def refused(connection: Connection) -> str:
    with pytest.raises(errors.TLSError) as caught:
        ask(connection)
    assert not caught.value.retryable
    assert connection.address in str(caught.value)
    return str(caught.value)


def test_a_server_whose_authority_is_trusted_answers(files: Any, serve: Serve) -> None:
    ask(files.reach(serve(files.issue("127.0.0.1"))))
    ask(files.reach(serve(files.issue("localhost")), host="localhost"))  # looked up, called by name


def test_a_server_that_wants_a_certificate_answers_the_holder_of_one(
    files: Any, serve: Serve
) -> None:
    port = serve(files.issue("127.0.0.1"), mutual=True)
    ask(files.reach(port, client_cert=files.client_cert, client_key=files.client_key))


def test_a_server_of_an_unknown_authority_is_refused(files: Any, serve: Serve) -> None:
    port = serve(files.issue("127.0.0.1"))
    for given in ({"ca_cert": files.strange_ca}, {"ca_cert": None, "tls": True}):
        said = refused(files.reach(port, **given))
        assert "no authority that is trusted here has signed the server's certificate" in said
        assert "--ca-cert" in said


def test_on_an_event_loop_it_is_the_same(
    files: Any, serve: Serve, heard: list[Received], tmp_path: Path
) -> None:
    port = serve(files.issue("127.0.0.1"), mutual=True)
    pair = {"client_cert": files.client_cert, "client_key": files.client_key}

    async def ask_on_a_loop(**given: Any) -> None:
        async with AsyncClient(files.reach(port, **given)) as client:
            await client.health()

    asyncio.run(ask_on_a_loop(**pair, token_file=private(tmp_path / "token", SECRET)))
    assert heard[0].headers["authorization"] == f"Bearer {SECRET}"
    for given, said in (
        ({**pair, "ca_cert": files.strange_ca}, "no authority that is trusted here"),
        ({}, "lets in only clients that show a certificate"),
        ({"ca_cert": None}, "the server speaks TLS"),
    ):
        with pytest.raises(errors.TLSError, match=said):
            asyncio.run(ask_on_a_loop(**given))


def test_a_server_with_another_name_is_refused(files: Any, serve: Serve) -> None:
    port = serve(files.issue("triton.plant"))
    assert "made out to other names" in refused(files.reach(port))
    assert "made out to other names" in refused(files.reach(port, host="localhost"))


def test_a_server_whose_certificate_has_expired_or_is_not_valid_yet_is_refused(
    files: Any, serve: Serve
) -> None:
    said = refused(files.reach(serve(files.issue("127.0.0.1", **PAST))))
    assert "the server's certificate, or one that it was signed with, has expired" in said
    assert "not valid yet" in refused(files.reach(serve(files.issue("127.0.0.1", **FUTURE))))


def test_of_a_fleet_the_servers_with_good_certificates_answer(files: Any, serve: Serve) -> None:
    good = files.reach(serve(files.issue("127.0.0.1")))
    bad = files.reach(serve(files.issue("127.0.0.1", **PAST)))
    with Client(replace(good, url=[bad.url, good.url])) as client:
        for _ in range(4):
            client.catalogue()
        health = client.health()
    assert [server.ready for server in health.servers] == [False, True]
    assert isinstance(health.servers[0].error, errors.TLSError)


def test_a_server_whose_certificate_went_bad_is_not_waited_for_and_taken_back_when_it_is_good(
    make_certificates: Any, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusionad_client.sdk.credentials.LOOK_EVERY_S", 0.0)
    files = make_certificates(tmp_path)
    good = files.ca.read_bytes()
    with Client(files.reach(serve(files.issue("127.0.0.1")))) as client:
        client.catalogue()
        files.ca.write_bytes(files.strange_ca.read_bytes())
        started = time.monotonic()
        for _ in range(3):
            with pytest.raises(errors.TLSError, match="no authority"):
                client.catalogue()
        assert time.monotonic() - started < 3  # of ten
        files.ca.write_bytes(good)
        end = time.monotonic() + 5
        while True:
            try:
                client.catalogue()
                break
            except errors.TLSError:
                assert time.monotonic() < end
                time.sleep(0.05)


def test_without_a_certificate_of_its_own_a_client_hears_that_it_needs_one(
    files: Any, serve: Serve
) -> None:
    said = refused(files.reach(serve(files.issue("127.0.0.1"), mutual=True)))
    assert "lets in only clients that show a certificate" in said
    assert "--client-cert" in said


def test_a_certificate_of_another_authority_is_named_as_what_the_server_refuses(
    files: Any, serve: Serve
) -> None:
    cert, key = files.write("strange", files.issue("line@plant", by=files.stranger))
    port = serve(files.issue("127.0.0.1"), mutual=True)
    said = refused(files.reach(port, client_cert=cert, client_key=key))
    assert "refuses the client's certificate" in said


def test_a_certificate_that_expires_while_the_client_runs_is_named(
    files: Any, serve: Serve
) -> None:
    soon = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=2)
    times = {"not_before": PAST["not_before"], "not_after": soon}
    cert, key = files.write("short", files.issue("line@plant", **times))
    connection = files.reach(
        serve(files.issue("127.0.0.1"), mutual=True), client_cert=cert, client_key=key
    )
    with Client(connection, retry=False) as client:
        while datetime.now(timezone.utc) <= soon + timedelta(seconds=1):
            time.sleep(0.1)
        with pytest.raises(errors.TLSError, match="client's certificate, because it has expired"):
            client.health()


def test_plain_text_to_a_server_with_tls_says_what_to_give(files: Any, serve: Serve) -> None:
    for mutual in (False, True):
        port = serve(files.issue("127.0.0.1"), mutual=mutual)
        said = refused(files.reach(port, ca_cert=None))
        assert "the server speaks TLS" in said
        assert "--ca-cert" in said


def test_tls_to_a_server_without_says_so(files: Any, serve: Serve) -> None:
    said = refused(files.reach(serve(None)))
    assert "does not speak TLS" in said
    assert "leave out ca_cert=" in said


def test_a_port_of_http_or_https_is_told_apart(files: Any) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        assert "does not speak TLS" in refused(files.reach(server.server_port))
        server.shutdown()
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files.issue("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        said = refused(files.reach(server.server_port))
        assert "speaks TLS, but not gRPC" in said
        assert "the server speaks TLS" in refused(files.reach(server.server_port, ca_cert=None))
        server.shutdown()


def test_a_server_that_is_gone_is_not_taken_for_one_of_tls(
    files: Any, dead_url: str, serve: Serve
) -> None:
    port = int(dead_url.rpartition(":")[2])
    for given in ({}, {"ca_cert": None}):
        with pytest.raises(errors.ServerUnavailableError):
            ask(files.reach(port, **given))


def test_a_server_that_hangs_up_on_all_is_not_taken_for_one_of_tls(files: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        Thread(target=hang_up, daemon=True).start()
        port = listener.getsockname()[1]
        for given in ({}, {"ca_cert": None}) * 5:
            with pytest.raises(errors.ServerUnavailableError):
                ask(files.reach(port, **given))


def test_asking_why_takes_no_longer_than_it_may(files: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        message = f"last error: UNAVAILABLE: ipv4:127.0.0.1:{port}: Socket closed"
        for given in ({}, {"ca_cert": None}):
            connection = files.reach(port, **given)
            started = time.monotonic()
            why = ask_why(message, connection.address, Credentials(connection), "plant", 0.2)
            assert why is None
            assert time.monotonic() - started < 0.4


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Ssl handshake failed: SSL_ERROR_SSL: error:10000438:TLSV1_ALERT_UNKNOWN_CA",
         "refuses the client's certificate"),
        ("Tls handshake failed: TLSV13_ALERT_CERTIFICATE_REQUIRED", "show a certificate"),
        ("Tls handshake failed: SSLV3_ALERT_CERTIFICATE_EXPIRED",
         "client's certificate, because it has expired"),
        ("Ssl handshake failed: NO_SHARED_CIPHER", "find no secure connection: .*NO_SHARED"),
    ],
)  # fmt: skip
def test_what_other_servers_say_is_understood(message: str, said: str) -> None:
    error = tls_failure(message, "plant:8001")
    with pytest.raises(errors.TLSError, match=f"^plant:8001: .*{said}"):
        raise error or AssertionError


def test_words_that_are_not_of_tls_are_not_taken_for_it() -> None:
    for message in ("Socket closed", "Exceeds maximum queue size", "Connection refused"):
        assert tls_failure(message, "plant") is None


# Files


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: f.client_cert.unlink(), "client.pem: the client's certificate cannot be read"),
        (lambda f: f.client_cert.write_text("hello"), "client.pem: there is no certificate in it"),
        (lambda f: f.client_cert.write_text(_damaged(f.client_cert)), "client.pem: .*damaged"),
        (lambda f: f.client_key.write_text("hello"), "client.key: there is no private key in it"),
        (lambda f: f.client_key.chmod(0o644), "client.key: others than its owner .*chmod 600"),
        (lambda f: f.client_key.write_bytes(_encrypted()), "client.key: the key is encrypted"),
        (lambda f: f.write("client", f.issue("a@b", **PAST)), "client.pem: .*has expired, at 2021"),
        (lambda f: f.write("client", f.issue("a@b", **FUTURE)), "client.pem: .* from 2090"),
        (lambda f: f.client_key.write_bytes(f.issue("a@b").private_key_pem.bytes()),
         "client.key: this is not the key of the certificate .*client.pem"),
        (lambda f: f.ca.write_bytes(f.client_key.read_bytes()), "ca.pem: there is no certificate"),
        (lambda f: f.ca.unlink() or f.ca.mkdir(), "ca.pem: .* cannot be read: Is a directory"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_named_before_anything_is_dialled(
    make_certificates: Any,
    tmp_path: Path,
    dead_url: str,
    break_it: Callable[[Any], object],
    said: str,
) -> None:
    files = make_certificates(tmp_path)
    break_it(files)
    with pytest.raises(errors.CredentialsError, match=said) as caught:
        Client(
            Connection(
                dead_url,
                ca_cert=files.ca,
                client_cert=files.client_cert,
                client_key=files.client_key,
            )
        )
    assert "PRIVATE KEY-----\n" not in str(caught.value)


def _damaged(path: Path) -> str:
    begin, *lines, end = path.read_text().strip().splitlines()
    return "\n".join([begin, *lines[:3], end])


def _encrypted() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


def test_certificates_that_are_replaced_are_used_without_a_new_client(
    make_certificates: Any, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusionad_client.sdk.credentials.LOOK_EVERY_S", 0.0)
    files = make_certificates(tmp_path)
    ours = serve(files.issue("127.0.0.1"))
    good = files.ca.read_bytes()
    with Client(files.reach(ours), retry=False) as client:
        client.health()
        files.ca.write_bytes(files.strange_ca.read_bytes())
        with pytest.raises(errors.TLSError, match="no authority"):
            client.health()
        files.ca.write_bytes(good)
        client.health()


def test_a_pair_that_is_being_replaced_is_used_when_both_are_there(
    make_certificates: Any,
    tmp_path: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("diffusionad_client.sdk.credentials.LOOK_EVERY_S", 0.0)
    files = make_certificates(tmp_path)
    reach = files.reach(1, client_cert=files.client_cert, client_key=files.client_key)
    credentials = Credentials(reach)
    first, before = credentials.channel_credentials(), credentials.stamp()
    old_key = files.client_key.read_bytes()
    files.write("client", files.issue("line@plant"))
    new_key = files.client_key.read_bytes()
    files.client_key.write_bytes(old_key)  # the new certificate is there, its key is not yet
    with caplog.at_level(logging.WARNING, "diffusionad_client"):
        assert credentials.channel_credentials() is first
        assert credentials.stamp() == before
    (warning,) = caplog.records  # and not one for each call
    assert "not the key of the certificate" in warning.getMessage()
    files.client_key.write_bytes(new_key)
    assert credentials.channel_credentials() is not first
    assert credentials.stamp() != before


def test_files_are_looked_at_once_a_second_and_no_oftener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("diffusionad_client.sdk.credentials.time.monotonic", lambda: clock[0])
    token = private(tmp_path / "token", "first\n")
    credentials = Credentials(Connection("127.0.0.1:1", token_file=token))
    token.write_text("second")
    clock[0] = 0.9
    assert credentials.metadata() == (("authorization", "Bearer first"),)
    clock[0] = 1.0
    assert credentials.metadata() == (("authorization", "Bearer second"),)


# Headers


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_tokens_and_headers_go_with_every_call_and_the_admin_key_with_few(
    tmp_path: Path, files: Any, serve: Serve, heard: list[Received]
) -> None:
    connection = files.reach(
        serve(files.issue("127.0.0.1")),
        token_file=private(tmp_path / "token", f"{SECRET}\n"),
        headers={"X-Line": "7"},
        header_files={"X-Api-Key": private(tmp_path / "key", "from a file")},
        admin_key="k" * 20,
    )
    with Client(connection) as client:
        client.health()
        client.catalogue()
    for call in heard:
        metadata = call.headers
        assert metadata["authorization"] == f"Bearer {SECRET}"
        assert metadata["x-line"] == "7"
        assert metadata["x-api-key"] == "from a file"
    assert {call.method: call.headers.get(ADMIN_METADATA) for call in heard} == {
        "ServerReady": None,
        "ServerMetadata": None,
        "RepositoryIndex": "k" * 20,
        "ModelConfig": None,
    }


@pytest.mark.parametrize("text", ["", "two words", "Bearer x", "é", "a\nb", "x" * 8193])
def test_a_file_without_a_token_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    path = private(tmp_path / "token", text)
    with pytest.raises(errors.CredentialsError, match="token: a token is a text") as caught:
        GrpcTransport("127.0.0.1:1", credentials=Credentials(Connection(token_file=path)))
    assert "two words" not in str(caught.value)
    assert "xx" not in str(caught.value)


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "token", SECRET)
    path.chmod(0o604)
    with pytest.raises(errors.CredentialsError, match=r"token \(mode 0604\); run `chmod 600"):
        Credentials(Connection(token_file=path))


def test_a_token_never_shows_in_logs_errors_or_texts(
    tmp_path: Path, files: Any, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    token = private(tmp_path / "token", SECRET)
    port = serve(files.issue("triton.plant"))
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for given in ({}, {"ca_cert": files.strange_ca}, {"ca_cert": None}):
            connection = files.reach(port, token_file=token, headers={"k": SECRET}, **given)
            said += [repr(connection), repr(Credentials(connection))]
            with pytest.raises(errors.DiffusionADError) as caught:
                ask(connection)
            error: BaseException | None = caught.value
            while error is not None:
                said += [str(error), repr(error)]
                error = error.__cause__
    assert SECRET not in "\n".join([*said, caplog.text])
