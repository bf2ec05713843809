"""Clients that are none of ours, against a real Triton: gRPC from Node, HTTP from curl."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from PIL import Image
from tritonclient.grpc import service_pb2

from diffusionad_client import Client
from diffusionad_client.sdk.inspection import Inspection

ROOT = Path(__file__).resolve().parents[2]
INTEROP = ROOT / "tests" / "interop"
INVALID_ARGUMENT = 3  # of gRPC's status codes

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with an image and a file that is none."""
    made = tmp_path_factory.mktemp("line")
    pixels = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(made / "part.jpg", quality=90)
    (made / "broken.jpg").write_text("this is not an image")
    return made


@pytest.fixture(scope="module")
def expected(encoded_server: Any, folder: Path) -> Inspection:
    with Client(encoded_server.grpc_url) as client:
        return client.inspect(folder / "part.jpg")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `node kserve_client.mjs descriptors` runs."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed here; install Node.js 20 to run this test")
    made = tmp_path_factory.mktemp("node")
    for name in ("kserve_client.mjs", "package.json", "package-lock.json"):
        shutil.copy(INTEROP / name, made)
    (made / "descriptors").write_bytes(published_service().SerializeToString())
    command = ("npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
    installed = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return made


def published_service() -> descriptor_pb2.FileDescriptorSet:
    """Triton's service as its own client brings it: imported files before their importers."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: Any) -> None:
        for imported in file.dependencies:
            add(imported)
        if file.name not in found:
            found[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)

    add(service_pb2.DESCRIPTOR)
    return descriptor_pb2.FileDescriptorSet(file=found.values())


def run_node(node: Path, url: str, image: Path) -> dict[str, Any]:
    command = ("node", "kserve_client.mjs", "descriptors", url, "widget__encoded", str(image))
    ran = subprocess.run(command, cwd=node, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


@pytest.mark.slow
def test_node_gets_the_answer_that_our_client_gets(
    node: Path, encoded_server: Any, folder: Path, expected: Inspection
) -> None:
    answer = run_node(node, encoded_server.grpc_url, folder / "part.jpg")
    assert expected.anomaly_map is not None
    assert np.float32(answer["score"]) == np.float32(expected.score)
    assert (answer["verdict"], answer["release"]) == (expected.verdict, expected.release)
    told = [*astuple(expected.thresholds), expected.pixel_threshold]
    np.testing.assert_array_equal(np.float32(answer["thresholds"]), np.float32(told))
    assert answer["map"] == [1, *expected.anomaly_map.shape]
    assert np.float32(answer["highest"]) == expected.anomaly_map.max()


@pytest.mark.slow
def test_node_gets_the_reason_for_a_broken_image(
    node: Path, encoded_server: Any, folder: Path
) -> None:
    answer = run_node(node, encoded_server.grpc_url, folder / "broken.jpg")
    assert answer["code"] == INVALID_ARGUMENT
    assert "not an image that can be read" in answer["details"]


def test_the_lock_file_names_no_host_but_the_public_registry() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (INTEROP / "package-lock.json").read_text()))
    funding = {"opencollective.com", "github.com"}
    assert hosts - funding <= {"registry.npmjs.org"}


def documented(title: str) -> str:
    """The shell commands below a heading of docs/encoded.md."""
    text = (ROOT / "docs" / "encoded.md").read_text()
    _, _, section = text.partition(f"\n### {title}\n")
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None, title
    return found[1]


def run_documented(title: str, folder: Path, server: Any, image: str = "part.jpg") -> str:
    for program in ("sh", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed here")
    script = documented(title).replace("127.0.0.1:8000", server.http_url)
    script = script.replace("screw", "widget").replace("part.jpg", image)
    assert server.http_url in script
    ran = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def values_of(answer: str) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}


def test_curl_sends_a_file_and_gets_its_score_and_what_it_was_judged_by(
    folder: Path, encoded_server: Any, expected: Inspection
) -> None:
    values = values_of(run_documented("curl, an image file", folder, encoded_server))
    assert np.float32(values["SCORE"]) == np.float32(expected.score)
    assert values["VERDICT"] == [expected.verdict.value]
    assert values["RELEASE"] == [expected.release]
    told = [*astuple(expected.thresholds), expected.pixel_threshold]
    np.testing.assert_array_equal(np.float32(values["THRESHOLDS"]), np.float32(told))


def test_curl_sends_nothing_but_the_file_and_gets_every_output(
    folder: Path, encoded_server: Any, expected: Inspection
) -> None:
    run_documented("curl, in one line", folder, encoded_server)
    header, body = split_answer((folder / "answer").read_bytes())
    arrays: dict[str, Any] = {}
    for output in header["outputs"]:
        size = output["parameters"]["binary_data_size"]
        kind = {"FP32": np.float32, "UINT8": np.uint8}.get(output["datatype"])
        if kind is None:
            length = int.from_bytes(body[:4], "little")
            arrays[output["name"]] = body[4 : 4 + length].decode()
        else:
            arrays[output["name"]] = np.frombuffer(body[:size], kind).reshape(output["shape"])
        body = body[size:]
    assert arrays["SCORE"] == np.float32(expected.score)
    assert (arrays["VERDICT"], arrays["RELEASE"]) == (expected.verdict.value, expected.release)
    np.testing.assert_array_equal(arrays["ANOMALY_MAP"][0], expected.anomaly_map)
    np.testing.assert_array_equal(arrays["RECONSTRUCTION"][0], expected.reconstruction)


def split_answer(answer: bytes) -> tuple[dict[str, Any], bytes]:
    """Separate the JSON in front from the tensors behind."""
    header, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
    return header, answer[end:]


def test_curl_sends_pixels_as_json(
    folder: Path, encoded_server: Any, expected: Inspection, tmp_path: Path
) -> None:
    with Client(encoded_server.grpc_url) as client:
        grey = client.inspect(np.full((32, 32, 3), 128, np.uint8))
    script = documented("curl, pixels as JSON")
    assert "size=256" in script
    script = script.replace("size=256", "size=32").replace("screw", "widget")
    script = script.replace("127.0.0.1:8000", encoded_server.http_url)
    ran = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
    values = values_of(ran.stdout)
    assert np.float32(values["SCORE"]) == np.float32(grey.score)
    assert values["VERDICT"] == [grey.verdict.value]


def test_curl_gets_the_reason_for_a_broken_image_with_status_400(
    folder: Path, encoded_server: Any
) -> None:
    answer = run_documented("curl, an image file", folder, encoded_server, image="broken.jpg")
    assert "unusable image 0 of the request: " in json.loads(answer)["error"]
    assert "not an image that can be read" in json.loads(answer)["error"]
