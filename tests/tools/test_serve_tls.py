"""`diffusionad serve` with TLS: a real Triton lets in whom it should, and the others hear why."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from waiting import wait_for

from diffusionad_client import Client, errors
from diffusionad_client.cli import main
from diffusionad_client.local_server import READY_PREFIX
from diffusionad_tools.server.checks import check_encryption
from diffusionad_tools.server.process import (
    Encryption,
    ExplicitControl,
    ServerSettings,
    TritonProcess,
    running_server,
)

wait_until = partial(wait_for, seconds=30)

IMAGE = np.zeros((32, 32, 3), np.uint8)
ADMIN_KEY = "k" * 20


@pytest.fixture(scope="module")
def certificates(make_certificates: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def mutual(certificates: Any, encoded_repository: Path) -> Iterator[TritonProcess]:
    """A server that lets in only holders of a certificate. Its own is for 127.0.0.1 alone."""
    cert, key = certificates.write("server", certificates.issue("127.0.0.1"))
    settings = ServerSettings(
        repository=encoded_repository,
        host="0.0.0.0",
        metrics_port=0,
        explicit=ExplicitControl(load=("widget",), admin_key=ADMIN_KEY),
        tls=Encryption(certificate=cert, key=key, client_ca=certificates.ca),
    )
    with running_server(settings) as server:
        yield server


@pytest.fixture
def reach(certificates: Any, mutual: TritonProcess) -> Any:
    """Gives a connection to that server, as it should be but for what is given."""
    port = int(mutual.grpc_url.rpartition(":")[2])

    def connection(**given: Any) -> Any:
        pair = {"client_cert": certificates.client_cert, "client_key": certificates.client_key}
        return certificates.reach(port, **(pair | given))

    return connection


def refused(connection: Any) -> str:
    with Client(connection, "widget", retry=False) as client, pytest.raises(errors.TLSError) as no:
        client.inspect(IMAGE)
    return str(no.value)


@pytest.mark.server
def test_the_holder_of_a_certificate_is_answered_and_a_token_is_no_hindrance(reach: Any) -> None:
    with Client(reach(token="t0ken"), admin_key=ADMIN_KEY) as client:
        assert client.inspect(IMAGE).model == "widget"
        assert client.load("widget").model == "widget"
        assert [served.model for served in client.models()] == ["widget"]


@pytest.mark.server
def test_each_way_to_be_refused_says_which_it_is(reach: Any, certificates: Any) -> None:
    assert "no authority that is trusted here" in refused(reach(ca_cert=certificates.strange_ca))
    assert "made out to other names" in refused(reach(host="localhost"))
    said = refused(reach(client_cert=None, client_key=None))
    assert "lets in only clients that show a certificate" in said
    cert, key = certificates.write(
        "strange", certificates.issue("line@plant", by=certificates.stranger)
    )
    assert "refuses the client's certificate" in refused(reach(client_cert=cert, client_key=key))
    plain = reach(ca_cert=None, client_cert=None, client_key=None)
    assert "the server speaks TLS" in refused(plain)


@pytest.mark.server
def test_certificates_that_are_replaced_are_shown_to_the_server(
    reach: Any, certificates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusionad_client.sdk.credentials.LOOK_EVERY_S", 0.0)
    cert, key = certificates.write("turned", certificates.issue("line@plant"))
    with Client(reach(client_cert=cert, client_key=key), "widget", retry=False) as client:
        client.inspect(IMAGE)
        certificates.write("turned", certificates.issue("line@plant", by=certificates.stranger))
        with pytest.raises(errors.TLSError, match="refuses the client's certificate"):
            client.inspect(IMAGE)
        certificates.write("turned", certificates.issue("line@plant"))
        assert client.inspect(IMAGE).model == "widget"


@pytest.mark.server
def test_a_fleet_with_tls_is_told_of_a_release_by_the_holder_of_a_certificate(
    mutual: TritonProcess, certificates: Any, encoded_repository: Path, tmp_path: Path
) -> None:
    key_file = tmp_path / "admin.key"
    key_file.write_text(ADMIN_KEY)
    key_file.chmod(0o600)
    tls = ("--ca-cert", certificates.ca, "--client-key", certificates.client_key)
    command = [
        *("release", "promote", "widget", 1, "--repository", encoded_repository, "--json"),
        *("--url", mutual.grpc_url, "--admin-key-file", key_file, *tls),
        *("--client-cert", certificates.client_cert),
    ]
    result = CliRunner().invoke(main, [str(word) for word in command])
    assert result.exit_code == 0, result.output
    (server,) = json.loads(result.stdout)["servers"]
    assert server["agrees"]
    assert server["url"] == mutual.grpc_url


@pytest.mark.server
def test_metrics_stay_on_loopback_where_the_rest_is_encrypted(mutual: TritonProcess) -> None:
    port = int(mutual.metrics_url.rpartition(":")[2])
    assert mutual.metrics_url.startswith("127.0.0.1:")
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    assert [at for at in listening if at.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


@pytest.mark.server
def test_a_server_whose_certificate_has_expired_is_refused(
    make_certificates: Any, encoded_repository: Path, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path)
    soon = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=2)
    times = {"not_before": soon - timedelta(days=1), "not_after": soon}
    cert, key = certificates.write("server", certificates.issue("127.0.0.1", **times))
    settings = ServerSettings(
        repository=encoded_repository,
        explicit=ExplicitControl(),
        tls=Encryption(certificate=cert, key=key),
    )
    with running_server(settings) as server:
        while datetime.now(timezone.utc) <= soon + timedelta(seconds=1):
            time.sleep(0.1)
        port = int(server.grpc_url.rpartition(":")[2])
        assert "the server's certificate, or one that it was signed with, has expired" in refused(
            certificates.reach(port)
        )


@pytest.mark.server
@pytest.mark.long
def test_a_server_with_tls_is_brought_back_with_tls(
    start_serve: Any, encoded_repository: Path, make_certificates: Any, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path)
    cert, key = certificates.write("server", certificates.issue("127.0.0.1"))
    command = start_serve(
        encoded_repository,
        *("--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(certificates.ca)),
        *("--model-control-mode", "explicit", "--admin-key-file", str(tmp_path / "admin.key")),
    )
    url = command.read_line().removeprefix(READY_PREFIX).strip()
    connection = certificates.reach(
        int(url.rpartition(":")[2]),
        client_cert=certificates.client_cert,
        client_key=certificates.client_key,
    )
    (triton,) = (pid for pid in command.descendants() if _is_triton(pid))
    with Client(connection) as client:
        assert client.health().ready
        os.kill(triton, signal.SIGKILL)
        wait_until(lambda: not is_ready(client))
        wait_until(lambda: is_ready(client))
    command.process.send_signal(signal.SIGTERM)
    code, stderr = command.finish()
    assert code == 0
    assert f"gRPC with TLS, for clients that {certificates.ca} vouches for." in stderr
    assert f"Ready again on {url}." in stderr


def is_ready(client: Client) -> bool:
    try:
        return client.health(timeout=1).ready
    except errors.ServerUnavailableError:
        return False


def _is_triton(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].endswith("tritonserver")


def serve(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve", *map(str, arguments)])


def test_tls_goes_with_both_of_its_files_and_without_http(
    encoded_repository: Path, certificates: Any
) -> None:
    cert, key = certificates.client_cert, certificates.client_key
    repository = ("--repository", encoded_repository)
    for lacking in (("--tls-cert", cert), ("--tls-key", key), ("--tls-client-ca", certificates.ca)):
        result = serve(*repository, *lacking)
        assert result.exit_code == 2
        assert "TLS takes both --tls-cert and --tls-key" in result.output
    result = serve(*repository, "--tls-cert", cert, "--tls-key", key, "--http-port", 0)
    assert result.exit_code == 1
    assert "leave out --http-port" in result.output


def test_files_that_a_server_cannot_use_are_named_before_it_starts(
    encoded_repository: Path, make_certificates: Any, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path)
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    old, old_key = certificates.write(
        "old", certificates.issue("a", not_before=past, not_after=past + timedelta(days=1))
    )
    cert, key = certificates.write("server", certificates.issue("a"))
    for given, said in (
        ((old, old_key, None), "old.pem: the server's certificate has expired"),
        ((cert, old_key, None), "old.key: this is not the key of the certificate"),
        ((tmp_path / "none.pem", key, None), "none.pem: the server's certificate cannot be read"),
        ((cert, cert, None), "server.pem: others than its owner may read the server's key"),
        ((cert, key, key), "server.key: there is no certificate in it"),
    ):
        command = ["--tls-cert", given[0], "--tls-key", given[1]]
        command += [] if given[2] is None else ["--tls-client-ca", given[2]]
        result = serve("--repository", encoded_repository, "--grpc-port", 0, *command)
        assert result.exit_code == 1
        assert f"Error: {tmp_path}/{said}" in result.output


def test_the_certificates_that_the_documents_make_can_be_used(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "openssl req" in b)
    made = subprocess.run(["sh", "-ec", block], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    check_encryption(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")
    check_encryption(tmp_path / "line.pem", tmp_path / "line.key", None)
    for name in ("server", "line"):
        checked = subprocess.run(
            ["openssl", "verify", "-CAfile", "ca.pem", f"{name}.pem"], cwd=tmp_path
        )
        assert checked.returncode == 0


def test_an_open_port_without_access_control_is_told_from_one_for_holders_of_certificates(
    encoded_repository: Path, certificates: Any
) -> None:
    address = socket.gethostbyname(socket.gethostname())
    if address.startswith("127."):
        address = "0.0.0.0"
    tls = ("--tls-cert", certificates.client_cert, "--tls-key", certificates.client_key)
    options = ("--repository", encoded_repository, "--host", address)
    assert "has no access control" in serve(*options, *tls).output
    result = serve(*options, *tls, "--tls-client-ca", certificates.ca)
    assert "has known security holes; add --unsafe-bind" in result.output
