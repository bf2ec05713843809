"""The examples do what their first lines say, against a server of this process."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from fastapi.testclient import TestClient
from google.protobuf import descriptor_pb2
from PIL import Image
from tritonclient.grpc import model_config_pb2, service_pb2

from diffusionad_client.testing import FakeCategory, FakeServer, Fault

EXAMPLES = Path(__file__).parents[2] / "examples"


def red(picture: Any) -> float:
    """Score by the mean of the first channel, which is red in RGB."""
    return float(picture[..., 0].mean()) / 255


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(FakeCategory(size=16, score=red)) as server:
        yield server


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, value in (("good", 10), ("bad", 250), ("unclear", 110)):
        Image.new("RGB", (40, 30), (value, 0, 0)).save(folder / f"{name}.png")
    return folder


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_line_ejects_what_is_bad_and_what_nobody_judged(
    server: FakeServer, pictures: Path
) -> None:
    (pictures / "zz.png").write_text("no picture")
    done = run("line_trigger.py", server.url, "screw", pictures)
    assert done.returncode == 0, done.stderr
    bad, good, unclear, broken = done.stdout.splitlines()
    assert bad.startswith("bad.png: EJECT, NG 0.98")
    assert "worst at" in bad
    assert good == "good.png: pass, OK 0.039"
    assert unclear.startswith("unclear.png: EJECT, REVIEW")
    assert broken.startswith("zz.png: EJECT, no verdict: ")


def test_a_line_stops_when_nothing_is_judged_any_more(server: FakeServer, pictures: Path) -> None:
    server.fail(Fault.FAILS)
    done = run("line_trigger.py", server.url, "screw", pictures)
    assert done.returncode == 1
    assert "STOP: no verdict for several parts in a row" in done.stderr


def test_frames_of_opencv_are_judged_by_their_own_colours(server: FakeServer) -> None:
    shares = []

    def score(picture: Any) -> float:
        shares.append(float(picture[..., 0].mean() - picture[..., 2].mean()))
        return red(picture)

    server.category.score = score
    done = run("opencv_camera.py", server.url, "screw", "--frames", 5)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:5]] == [
        f"frame {number}" for number in range(5)
    ]
    assert min(shares) > 0  # the patch that moves over the frame is red


def test_a_service_answers_as_its_caller_needs(
    server: FakeServer, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSIONAD_URL", server.url)
    spec = importlib.util.spec_from_file_location("service", EXAMPLES / "asyncio_service.py")
    assert spec is not None
    assert spec.loader is not None
    service = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "service", service)
    spec.loader.exec_module(service)
    with TestClient(service.app) as caller:
        good = caller.post("/inspect", files={"picture": (pictures / "good.png").read_bytes()})
        assert (good.status_code, good.json()["verdict"]) == (200, "OK")
        bad = caller.post("/inspect", files={"picture": b"no picture"})
        assert bad.status_code == 422
        server.fail(Fault.FAILS, times=1)
        assert caller.post("/inspect", files={"picture": b"no"}).status_code == 422
        failed = caller.post("/inspect", files={"picture": (pictures / "good.png").read_bytes()})
        assert failed.status_code == 502
        assert caller.get("/stats").json()["calls"] == 4


def test_a_folder_goes_over_a_fleet_with_tls_and_a_token(tmp_path: Path, pictures: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    pair = (issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes())
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("a-secret-of-the-plant\n")
    with (
        FakeServer(FakeCategory(size=16, score=red), certificate=pair) as first,
        FakeServer(FakeCategory(size=16, score=red), certificate=pair) as second,
    ):
        done = run(
            *("fleet_with_tls.py", pictures, first.url, second.url, "--model", "screw"),
            *("--ca", tmp_path / "ca.pem", "--token-file", token),
        )
        headers = [request.headers for server in (first, second) for request in server.requests]
    assert done.returncode == 0, done.stderr
    assert "{'NG': 1, 'OK': 1, 'REVIEW': 1}" in done.stdout.replace('"', "'") or all(
        f"'{verdict}': 1" in done.stdout for verdict in ("OK", "NG", "REVIEW")
    )
    assert {sent["authorization"] for sent in headers} == {"Bearer a-secret-of-the-plant"}
    assert "a-secret" not in done.stdout + done.stderr


def built(folder: Path) -> Path:
    """Build the C++ example; the protocol files come out of the Python client's own."""
    tools = ("c++", "protoc", "grpc_cpp_plugin", "pkg-config")
    if lacking := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"the C++ example needs {', '.join(lacking)}")
    if subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"]).returncode != 0:
        pytest.skip("the C++ example needs libgrpc++-dev")
    files = descriptor_pb2.FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    (folder / "protos.bin").write_bytes(files.SerializeToString())
    names = [file.name for file in files.file]
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}"
    make = ["protoc", "--descriptor_set_in=protos.bin", "--cpp_out=.", "--grpc_out=.", plugin]
    subprocess.run([*make, *names], cwd=folder, check=True)
    libraries = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "grpc++", "protobuf"],
        capture_output=True,
        text=True,
        check=True,
    )
    sources = [str(EXAMPLES / "cpp" / "inspect.cpp"), *map(str, folder.glob("*.cc"))]
    compile_ = ["c++", "-std=c++17", "-O0", f"-I{folder}", *sources, "-o", "inspect"]
    subprocess.run([*compile_, *libraries.stdout.split()], cwd=folder, check=True)
    return folder / "inspect"


@pytest.mark.long
def test_the_cpp_example_builds_and_prints_the_verdict(
    server: FakeServer, pictures: Path, tmp_path: Path
) -> None:
    program = str(built(tmp_path))
    bad = [program, server.url, "screw", str(pictures / "bad.png")]
    done = subprocess.run(bad, capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("NG 0.98"), done.stderr
    assert "reject 0.6, release aaaaaaaaaaaa" in done.stdout
    server.fail(Fault.QUEUE_FULL, times=2)
    done = subprocess.run(bad, capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("NG"), done.stderr
    server.fail(Fault.NOT_FOUND)
    done = subprocess.run(bad, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "unknown model" in done.stderr
