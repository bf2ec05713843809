"""How a connection is written down, and what of it never shows."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffusionad_client import Connection, errors
from diffusionad_client.sdk.addresses import is_loopback
from diffusionad_client.sdk.credentials import credentials_of

SECRET = "s3cret-of-the-line"


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("a:1", ("a:1",)),
        ("a:1,b:2,a:1", ("a:1", "b:2")),
        (["a:1", "b:2", "a:1"], ("a:1", "b:2")),
        (("dns:///plant:8001", "unix:/run/triton"), ("dns:///plant:8001", "unix:/run/triton")),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", ("ipv4:10.0.0.1:1,10.0.0.2:1",)),  # gRPC's own list
    ],
)
def test_servers_are_named_in_several_ways_and_counted_once(url: Any, servers: Any) -> None:
    connection = Connection(url)
    assert connection.servers == servers
    assert replace(connection, timeout=1).servers == servers
    assert connection.url == (servers[0] if len(servers) == 1 else servers)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ([], "no server is named"),
        ("a:1,", "'' is not a server's address"),
        (
            ["a:1", "http://b:2"],
            r"'http://b:2' is not .* has no scheme \(http://\); give HOST:PORT",
        ),
        ("https://b:2", "tls=True or --tls"),
        ("b:2/v2", "has no path"),
        ("plant", "port is missing"),
        (["a:1", "b:0"], "between 1 and 65535"),
        (["a:1,b:2"], "HOST:PORT"),
        (b"a:1", "HOST:PORT"),
        ([b"a:1"], "HOST:PORT"),
        (None, "HOST:PORT"),
    ],
)
def test_a_server_that_cannot_be_dialled_is_named_with_the_remedy(url: Any, said: str) -> None:
    with pytest.raises(errors.AddressError, match=said):
        Connection(url)


@pytest.mark.parametrize(
    "server",
    ["localhost:1", "127.3.4.5:1", "[::1]:1", "dns:///localhost:1", "unix:/run/triton",
     "ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:1"],
)  # fmt: skip
def test_this_machine_is_known_by_its_names(server: str) -> None:
    assert is_loopback(server)
    assert not Connection(server, token=SECRET).plaintext_servers


@pytest.mark.parametrize(
    "server",
    ["plant:1", "10.0.0.1:1", "ipv4:127.0.0.1:1,10.0.0.2:1", "dns://localhost/plant:1",
     "localhost.plant:1", "xds:///localhost", "127.0.0.1.plant:1"],
)  # fmt: skip
@pytest.mark.parametrize(
    "secret",
    [
        {"token": SECRET},
        {"token_file": "t"},
        {"headers": {"k": SECRET}},
        {"header_files": {"k": "h"}},
    ],
)
def test_a_secret_leaves_this_machine_in_plain_text_only_if_that_is_said(
    server: str, secret: dict[str, Any]
) -> None:
    with pytest.raises(errors.CredentialsError, match="--ca-cert.*--insecure"):
        Connection(["localhost:1", server], **secret)
    assert Connection(server, insecure=True, **secret).plaintext_servers == (server,)
    assert Connection(server, tls=True, **secret).plaintext_servers == ()


def test_plain_text_without_a_secret_is_warned_about_once_a_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "diffusionad_client"):
        credentials_of(Connection(["localhost:1", "plant:1", "other:1"], admin_key="k" * 20))
        (warning,) = caplog.records
        credentials_of(Connection("plant:1", insecure=True))
        credentials_of(Connection("plant:1", tls=True))
        credentials_of(Connection("127.0.0.1:1"))
    assert caplog.records == [warning]
    assert warning.getMessage().startswith("plant:1, other:1: without TLS")
    assert "the admin key" in warning.getMessage()
    assert "k" * 20 not in warning.getMessage()


def test_any_certificate_makes_it_one_of_tls() -> None:
    assert Connection("a:1", ca_cert="ca.pem").tls
    assert Connection("a:1", client_cert="c.pem", client_key="c.key").tls
    assert Connection("a:1", tls=True).tls
    assert not Connection("a:1").tls


def test_no_text_of_a_connection_shows_a_secret() -> None:
    connection = Connection(
        "plant:1", tls=True, token=SECRET, headers={"X-Api-Key": SECRET}, admin_key=SECRET
    )
    assert SECRET not in repr(connection) + str(connection) + f"{connection}"
    there = pickle.loads(pickle.dumps(connection))
    assert there == connection
    assert hash(there) == hash(connection)
    assert (there.token, there.headers) == (SECRET, {"x-api-key": SECRET})
    assert there != replace(connection, token="another")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"client_cert": "c.pem"}, errors.CredentialsError, "only with client_key"),
        ({"client_key": "c.key"}, errors.CredentialsError, "only with client_cert"),
        ({"ca_cert": 5}, errors.ArgumentError, "ca_cert is the path of a file"),
        ({"ca_cert": ""}, errors.ArgumentError, "ca_cert is the path of a file"),
        ({"tls": "no"}, errors.ArgumentError, "tls is True or False"),
        ({"token": f"Bearer {SECRET}"}, errors.CredentialsError, "without the word Bearer"),
        ({"token": ""}, errors.CredentialsError, "1 to 8192 ASCII"),
        ({"token": SECRET + "\n"}, errors.CredentialsError, "without blanks"),
        ({"token": SECRET, "token_file": "f"}, errors.CredentialsError, "more than once"),
        ({"headers": {"Authorization": SECRET}, "token": SECRET}, errors.CredentialsError,
         "'authorization' is given more than once"),
        ({"headers": {"X": SECRET, "x": SECRET}}, errors.CredentialsError, "more than once"),
        ({"headers": {"a b": SECRET}}, errors.CredentialsError, "no name of a header"),
        ({"headers": {"x": SECRET + "\nEvil: 1"}}, errors.CredentialsError, "one line of ASCII"),
        ({"headers": {"x": SECRET + "é"}}, errors.CredentialsError, "one line of ASCII"),
        ({"headers": {"x": 5}}, errors.CredentialsError, "one line of ASCII"),
        ({"headers": {"grpc-timeout": "1S"}}, errors.CredentialsError, "gRPC's own"),
        ({"headers": {"key-bin": SECRET}}, errors.CredentialsError, "gRPC's own"),
        ({"headers": {"triton-grpc-protocol-diffusionad-admin-key": SECRET}},
         errors.CredentialsError, "--admin-key-file"),
        ({"headers": [("x", SECRET)]}, errors.ArgumentError, "mapping"),
        ({"header_files": {"x": 1}}, errors.ArgumentError, "path of a file"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_and_not_shown(
    given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        Connection("127.0.0.1:1", **given)
    assert SECRET not in str(refused.value)


def test_paths_are_taken_as_texts_or_paths() -> None:
    assert Connection("a:1", ca_cert="ca.pem") == Connection("a:1", ca_cert=Path("ca.pem"))
