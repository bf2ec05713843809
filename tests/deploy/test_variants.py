"""The other variants of the chart, each started with its own command line on a real Triton."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import wait_for

from diffusionad_client import Client, errors

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "k" * 32

pytestmark = [pytest.mark.long, pytest.mark.server]


def server_of(documents: list[Any]) -> Any:
    return next(
        d["spec"]["template"]["spec"]["containers"][0]
        for d in documents
        if d["kind"] == "Deployment" and d["metadata"]["name"] == "plant"
    )


def wait_for_probe(server: Any) -> None:
    said: list[subprocess.CompletedProcess[str]] = []

    def passes() -> bool:
        said[:] = [server.probe("startupProbe")]
        return said[0].returncode == 0

    try:
        wait_for(passes, 60)
    except AssertionError:
        pytest.fail(said[0].stdout + said[0].stderr + server.log.read_text(errors="replace"))


def test_probes_work_under_mutual_tls_and_the_admin_key_opens_what_is_closed(
    render: Callable[..., list[Any]], deploy: Any, make_certificates: Any, tmp_path: Path,
    temporary: Path,
) -> None:  # fmt: skip
    certificates = make_certificates(tmp_path)
    cert, key = certificates.write("server", certificates.issue("localhost", "127.0.0.1"))
    admin = tmp_path / "admin.key"
    admin.write_text(ADMIN_KEY)
    admin.chmod(0o600)
    places = {
        "/models": str(ROOT / "model_repository"),
        "/run/tls/server/tls.crt": str(cert),
        "/run/tls/server/tls.key": str(key),
        "/run/tls/clients/ca.crt": str(certificates.ca),
        "/run/tls/probe/ca.crt": str(certificates.ca),
        "/run/tls/probe/tls.crt": str(certificates.client_cert),
        "/run/tls/probe/tls.key": str(certificates.client_key),
        "/run/admin/key": str(admin),
        "$(POD_UID)": "0b5c1c1e-pod",
        "$(ADMIN_KEY)": ADMIN_KEY,
    }
    folder = temporary / "mutual"
    folder.mkdir()
    pair = {"client_cert": certificates.client_cert, "client_key": certificates.client_key}
    with deploy(server_of(render("mutual")), folder, places) as server:
        wait_for_probe(server)
        port = int(server.places["8001"])
        denied = pytest.raises(errors.AccessDeniedError, match="admin key")
        with Client(certificates.reach(port, **pair), retry=False) as client, denied:
            client.load("demo_plate")
        with Client(certificates.reach(port, **pair), admin_key=ADMIN_KEY) as client:
            assert client.load("demo_plate").model == "demo_plate"
        stranger = pytest.raises(errors.TLSError, match="only clients that show a certificate")
        with Client(certificates.reach(port), retry=False) as client, stranger:
            client.health()


def test_the_embedded_server_starts_as_the_chart_says_and_keeps_statistics_to_itself(
    render: Callable[..., list[Any]], deploy: Any, temporary: Path
) -> None:
    folder = temporary / "embedded"
    folder.mkdir()
    places = {"/models": str(ROOT / "model_repository")}
    with deploy(server_of(render("embedded")), folder, places) as server:
        wait_for_probe(server)
        with grpc.insecure_channel(server.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for call, request in (
                (stub.ModelStatistics, service_pb2.ModelStatisticsRequest()),
                (stub.SystemSharedMemoryStatus, service_pb2.SystemSharedMemoryStatusRequest()),
                (stub.LogSettings, service_pb2.LogSettingsRequest()),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    call(request, timeout=10)
                assert "restricted" in refused.value.details()
