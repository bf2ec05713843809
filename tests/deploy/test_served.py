"""What the chart starts, on a real Triton: the pod's command line, its probes, the gateway."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import wait_for

from diffusionad_client import Client, Connection, errors
from diffusionad_client.sdk.transports.errors import translate
from diffusionad_client.testing import FakeCategory, FakeServer

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tools" / "deploy" / "chart" / "files"
IMAGE = np.zeros((256, 256, 3), np.uint8)
TOKEN, OTHER = "5eed" * 16, "cafe" * 16
BODY_KB = 400

# Each call of Triton that is neither inference nor health, with a request.
CLOSED: dict[str, Any] = {
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name="demo_plate"),
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="demo_plate"),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(
        name="a", key="/a", byte_size=64
    ),
    "SystemSharedMemoryUnregister": service_pb2.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": service_pb2.CudaSharedMemoryRegisterRequest(name="a"),
    "CudaSharedMemoryUnregister": service_pb2.CudaSharedMemoryUnregisterRequest(),
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "LogSettings": service_pb2.LogSettingsRequest(),
    "ModelStatistics": service_pb2.ModelStatisticsRequest(),
}


def test_the_probes_of_the_pod_pass_on_the_server_that_it_starts(triton: Any) -> None:
    startup, *others = (
        triton.container[f"{when}Probe"] for when in ("startup", "readiness", "liveness")
    )
    assert all(other["exec"] == startup["exec"] for other in others)
    said = triton.probe("startupProbe")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "demo_plate: answers in" in said.stdout


@pytest.mark.parametrize("call", CLOSED)
def test_the_server_itself_refuses_what_is_neither_inference_nor_health(
    triton: Any, call: str
) -> None:
    with grpc.insecure_channel(triton.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            getattr(stub, call)(CLOSED[call], timeout=10)
    assert re.search("restricted|not allowed", refused.value.details())


def test_metrics_are_where_the_pod_says(triton: Any) -> None:
    (port,) = (p for p in triton.container["ports"] if p["name"] == "metrics")
    assert port["containerPort"] == 8002
    with urllib.request.urlopen(triton.metrics_url, timeout=5) as answer:
        assert b"nv_inference_count" in answer.read()


# The gateway


class Gateway:
    """A real nginx with the chart's configuration, in front of a server."""

    def __init__(self, nginx: str, folder: Path, server: str, certificates: Any) -> None:
        """Stand in front of a server, or of what a whole `site.conf` says."""
        self.folder = folder
        self.site = server if "\n" in server else f'map "" $triton {{ default {server}; }}\n'
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            self.port, self.alive = one.getsockname()[1], two.getsockname()[1]
        for place in ("tls", "tokens"):
            (folder / place).mkdir()
        self.certificates = certificates
        cert, key = certificates.write("gateway", certificates.issue("127.0.0.1"))
        (folder / "tls" / "tls.crt").write_bytes(cert.read_bytes())
        (folder / "tls" / "tls.key").write_bytes(key.read_bytes())
        tokens = f'"Bearer {TOKEN}" line1;\n"Bearer {OTHER}" line2;\n'
        (folder / "tokens" / "tokens.map").write_text(tokens)
        self.limit(rate=1000, burst=1000)
        text = (FILES / "nginx.conf").read_text(encoding="utf-8")
        here = {
            "/run/gateway": str(folder),
            "/tmp/": f"{folder}/",
            "8443": str(self.port),
            "8080": str(self.alive),
            "/dev/stdout": str(folder / "access.log"),
        }
        assert all(there in text for there in here)
        text = re.sub("|".join(here), lambda there: here[there[0]], text)
        (folder / "nginx.conf").write_text(text)
        self.log = (folder / "error.log").open("wb")
        self.process = subprocess.Popen(
            [nginx, "-c", str(folder / "nginx.conf"), "-e", "stderr"],
            stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(self.answers)
        except BaseException:
            self.close()
            raise

    def limit(self, *, rate: int, burst: int) -> None:
        (self.folder / "site.conf").write_text(
            f"{self.site}limit_req_zone $caller zone=callers_{rate}:1m rate={rate}r/s;\n"
        )
        (self.folder / "limits.conf").write_text(
            f"limit_req zone=callers_{rate} burst={burst} nodelay;\n"
            f"client_max_body_size {BODY_KB}k;\n"
        )

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "error.log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.alive}/alive", timeout=2) as said:
                return bool(said.status == 200)
        except OSError:
            return False

    def reload(self) -> None:
        """Have new workers take over, and wait until the old ones are gone."""
        before = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: (now := self.workers()) and not now & before)

    def workers(self) -> set[str]:
        return set(
            Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        )

    def reach(self, **given: Any) -> Connection:
        return Connection(
            f"127.0.0.1:{self.port}",
            timeout=20,
            **{"ca_cert": self.certificates.ca, "token": TOKEN, **given},
        )

    def close(self) -> None:
        self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def gateway(
    triton: Any, make_certificates: Any, find_program: Callable[..., str], temporary: Path
) -> Iterator[Gateway]:
    nginx = find_program("nginx", "apt-get install nginx-light")
    folder = temporary / "gateway"
    folder.mkdir()
    (folder / "certificates").mkdir()
    certificates = make_certificates(folder / "certificates")
    made = Gateway(nginx, folder, triton.grpc_url, certificates)
    try:
        yield made
    finally:
        made.close()


def test_the_gateway_passes_inference_and_health_of_a_known_caller(
    gateway: Gateway, triton: Any
) -> None:
    with Client(gateway.reach(), "demo_plate") as client, Client(triton.grpc_url) as direct:
        assert client.health().ready
        assert client.inspect(IMAGE).score == direct.inspect(IMAGE).score
        assert client.probe("demo_plate")[0].answers
    log = (gateway.folder / "access.log").read_text()
    assert '"caller":"line1"' in log
    assert TOKEN not in log


@pytest.mark.parametrize("token", [None, "0" * 64, TOKEN[:-1], ""])
def test_the_gateway_refuses_who_has_no_token_that_it_knows(
    gateway: Gateway, token: str | None
) -> None:
    with Client(gateway.reach(token=token or None), "demo_plate", retry=False) as client:
        with pytest.raises(errors.AccessDeniedError, match="no such token"):
            client.inspect(IMAGE)
        with pytest.raises(errors.AccessDeniedError, match="no such token"):
            client.health()


@pytest.mark.parametrize("call", [*CLOSED, "RepositoryIndex", "ModelStreamInfer", "Unheard"])
@pytest.mark.parametrize("token", [TOKEN, None])
def test_the_gateway_refuses_every_other_call_with_and_without_a_token(
    gateway: Gateway, call: str, token: str | None
) -> None:
    credentials = grpc.ssl_channel_credentials(gateway.certificates.ca.read_bytes())
    metadata = [("triton-grpc-protocol-diffusionad-key", "0b5c1c1e-pod")]  # what Triton would take
    metadata += [("authorization", f"Bearer {token}")] if token else []
    with grpc.secure_channel(f"127.0.0.1:{gateway.port}", credentials) as channel:
        send = channel.unary_unary(f"/inference.GRPCInferenceService/{call}")
        with pytest.raises(grpc.RpcError) as refused:
            send(
                CLOSED[call].SerializeToString() if call in CLOSED else b"",
                metadata=metadata,
                timeout=10,
            )
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "inference and health only" in refused.value.details()


def test_the_gateway_passes_no_header_that_opens_what_triton_closes(
    gateway: Gateway, triton: Any
) -> None:
    request = service_pb2.ModelStatisticsRequest()
    metadata = [("triton-grpc-protocol-diffusionad-key", "0b5c1c1e-pod")]
    with grpc.insecure_channel(triton.grpc_url) as channel:  # so the header does open it
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelStatistics(request, metadata=metadata, timeout=10).model_stats
    conf = (FILES / "nginx.conf").read_text(encoding="utf-8")
    assert 'grpc_set_header triton-grpc-protocol-diffusionad-key "";' in conf


def test_the_gateway_refuses_a_long_message_while_it_comes_in(gateway: Gateway) -> None:
    credentials = grpc.ssl_channel_credentials(gateway.certificates.ca.read_bytes())
    metadata = [("authorization", f"Bearer {TOKEN}")]
    long = service_pb2.ModelInferRequest(model_name="demo_plate")
    long.raw_input_contents.append(bytes(3 * BODY_KB * 1024))
    with grpc.secure_channel(f"127.0.0.1:{gateway.port}", credentials) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(long, metadata=metadata, timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "longer than the gateway lets through" in refused.value.details()


def test_the_gateway_speaks_tls_only(gateway: Gateway) -> None:
    plain = Connection(f"127.0.0.1:{gateway.port}", timeout=5)
    refused = pytest.raises(errors.ServerUnavailableError, match="does not speak gRPC")
    with Client(plain, "demo_plate", retry=False) as client, refused:
        client.inspect(IMAGE)


def test_a_caller_who_sends_too_much_is_told_that_it_is_busy_and_another_is_served(
    gateway: Gateway,
) -> None:
    gateway.limit(rate=1, burst=4)
    gateway.reload()
    try:
        said: list[type[Exception] | None] = []
        with Client(gateway.reach(), "demo_plate", retry=False) as client:
            for _ in range(8):
                try:
                    client.health()
                    said.append(None)
                except errors.DiffusionADError as exc:
                    said.append(type(exc))
        assert None in said
        assert said[-1] is errors.ServerBusyError
        assert set(said) == {None, errors.ServerBusyError}
        with Client(gateway.reach(token=OTHER), retry=False) as other:
            assert other.health().ready
    finally:
        gateway.limit(rate=1000, burst=1000)
        gateway.reload()


def test_behind_the_gateway_a_server_of_several_leaves_and_comes_back_without_a_lost_call(
    make_certificates: Any, find_program: Callable[..., str], tmp_path: Path
) -> None:
    """With the `site.conf` for several servers of systemd on one machine."""
    nginx = find_program("nginx", "apt-get install nginx-light")
    (tmp_path / "certificates").mkdir()
    certificates = make_certificates(tmp_path / "certificates")
    site = (ROOT / "tools" / "deploy" / "systemd" / "site.conf").read_text(encoding="utf-8")
    with FakeServer(FakeCategory("screw")) as one, FakeServer(FakeCategory("screw")) as other:
        for there, server in (("127.0.0.1:8001", one), ("127.0.0.1:8011", other)):
            assert site.count(there) == 1
            site = site.replace(there, server.url)
        gateway = Gateway(nginx, tmp_path, site, certificates)
        try:
            with Client(gateway.reach(), "screw") as client:

                def more_of(server: FakeServer) -> bool:
                    before = server.counts["ModelInfer"]
                    for _ in range(4):
                        client.inspect(IMAGE)
                    return server.counts["ModelInfer"] > before

                assert more_of(one)
                assert more_of(other)
                one.stop()
                assert more_of(other)
                one.start()
                wait_for(lambda: more_of(one), 10)
                assert client.stats().tries == client.stats().calls
        finally:
            gateway.close()


# Last: it ends the server.


def test_a_server_that_is_told_to_stop_gives_back_what_it_has_not_done_and_ends_in_time(
    triton: Any,
) -> None:
    rng = np.random.default_rng(0)
    with grpc.insecure_channel(triton.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        images = [rng.integers(0, 256, (1, 256, 256, 3), dtype=np.uint8) for _ in range(12)]
        calls = [stub.ModelInfer.future(request(image), timeout=60) for image in images]
        wait_for(lambda: any(call.done() for call in calls))  # the others came in meanwhile
        triton.process.send_signal(signal.SIGTERM)
        assert not all(call.done() for call in calls)
        for call in calls:
            if (refused := call.exception()) is not None:
                error = translate(refused.code().name, refused.details(), "demo_plate", 60)
                assert type(error) is errors.ServerUnavailableError  # so the client asks another
                assert error.retryable
        assert any(call.exception() is None for call in calls)
    exits = next(w for w in triton.container["args"] if w.startswith("--exit-timeout-secs="))
    triton.process.wait(int(exits.partition("=")[2]))
    assert triton.process.returncode == 0


def request(image: np.ndarray[Any, Any]) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name="demo_plate")
    tensor = message.inputs.add(name="IMAGE", datatype="UINT8", shape=image.shape)
    assert tensor.name == "IMAGE"
    message.outputs.add(name="SCORE")
    message.raw_input_contents.append(image.tobytes())
    return message
