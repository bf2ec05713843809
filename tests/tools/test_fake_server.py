"""The client's server for tests beside a real Triton: the same requests, the same answers.

Both serve the shipped release. What the fake one cannot compute, the score and
the pictures of an image, it is told from the real one's answer.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import wait_for as wait_for_seconds

from diffusionad_client import Client, contract
from diffusionad_client.sdk.admin_key import ADMIN_METADATA
from diffusionad_client.testing import FakeCategory, FakeServer, Fault
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.server.process import (
    ExplicitControl,
    ServerSettings,
    TritonProcess,
    running_server,
)

wait_for = partial(wait_for_seconds, seconds=20)

pytestmark = pytest.mark.server

SHIPPED = Path(__file__).parents[2] / "model_repository"
MODEL = "demo_plate"
ENCODED = f"{MODEL}__encoded"
KEY = "k" * 20
WITH_KEY = ((ADMIN_METADATA, KEY),)
PIXELS = np.full((1, 256, 256, 3), 128, np.uint8).tobytes()


def infer_request(
    model: str = MODEL,
    *,
    shape: tuple[int, ...] = (1, 256, 256, 3),
    content: bytes | None = PIXELS,
    kind: str = "UINT8",
    name: str = contract.IMAGE,
    outputs: tuple[str, ...] = (contract.SCORE,),
    request_id: str = "",
    version: str = "",
) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    request.inputs.add(name=name, datatype=kind, shape=shape)
    if content is not None:
        request.raw_input_contents.append(content)
    for output in outputs:
        request.outputs.add(name=output)
    return request


def file_request(*files: bytes, content: bytes | None = None) -> Any:
    packed = b"".join(struct.pack("<I", len(file)) + file for file in files)
    return infer_request(
        ENCODED,
        shape=(1, 1),
        content=content or packed,
        kind="BYTES",
        name=contract.IMAGE_BYTES,
        outputs=(contract.RELEASE,),
    )


def grey_file() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Pair:
    """A real server and a fake one."""

    process: TritonProcess
    real: Any  # stubs of Triton's service
    fake: Any
    server: FakeServer

    def ask(self, method: str, request: Any, headers: Any = ()) -> tuple[Any, Any]:
        """Give both answers to a call."""
        return told(self.real, method, request, headers), told(self.fake, method, request, headers)


def told(stub: Any, method: str, request: Any, headers: Any = ()) -> Any:
    """Give a status and its words, or an answer as a message in an order of ours."""
    try:
        answer = getattr(stub, method)(request, timeout=30, metadata=headers)
    except grpc.RpcError as exc:
        return exc.code().name, exc.details()
    if method == "ModelInfer":  # an ensemble gives its outputs in any order
        pairs = zip(answer.outputs, answer.raw_output_contents, strict=True)
        outputs = {o.name: (o.datatype, tuple(o.shape), content) for o, content in pairs}
        return answer.model_name, answer.model_version, answer.id, dict(answer.parameters), outputs
    if method == "ModelConfig":
        return plain_config(answer.config)
    return answer


def plain_config(config: Any) -> Any:
    """Leave out how a step is run, and what is remembered of earlier releases."""
    for field in ("instance_group", "dynamic_batching", "optimization", "model_warmup"):
        config.ClearField(field)
    for field in ("default_model_filename", "model_transaction_policy", "runtime"):
        config.ClearField(field)
    if config.platform != "ensemble":
        config.ClearField("parameters")
    config.parameters.pop("diffusionad_served_before", None)
    return config


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    repository = tmp_path_factory.mktemp("shipped") / "repository"
    shutil.copytree(SHIPPED, repository)
    explicit = ExplicitControl(load=[MODEL, ENCODED], admin_key=KEY)
    release = find_release(SHIPPED, MODEL, None)
    with running_server(ServerSettings(repository=repository, explicit=explicit)) as process:
        with Client(process.grpc_url, MODEL) as client:
            found = client.inspect(np.full((256, 256, 3), 128, np.uint8), timeout=60)
        category = FakeCategory.of(
            release.metadata,
            version=str(release.version),
            score=found.score,
            anomaly_map=found.anomaly_map,
            reconstruction=found.reconstruction,
        )
        options = [("grpc.max_receive_message_length", -1)]
        with (
            FakeServer(category, admin_key=KEY) as server,
            grpc.insecure_channel(process.grpc_url, options=options) as real,
            grpc.insecure_channel(server.url, options=options) as fake,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub
            yield Pair(process, stub(real), stub(fake), server)


@pytest.mark.parametrize("version", ["", "1", "7", "x"])
@pytest.mark.parametrize(
    "model", [MODEL, ENCODED, f"{MODEL}__judgement", "image_decoding_256", "nut", ""]
)
@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig"])
def test_what_it_says_of_a_model_is_what_triton_says(
    pair: Pair, method: str, model: str, version: str
) -> None:
    request = getattr(service_pb2, f"{method}Request")(name=model, version=version)
    real, fake = pair.ask(method, request)
    assert fake == real


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ServerMetadata"])
def test_what_it_says_of_itself_is_what_triton_says(pair: Pair, method: str) -> None:
    real, fake = pair.ask(method, getattr(service_pb2, f"{method}Request")())
    assert fake == real


ANSWERED = {
    "all outputs": infer_request(outputs=()),
    "some outputs": infer_request(outputs=(contract.VERDICT, contract.SCORE), request_id="abc"),
    "a version": infer_request(version="1"),
    "a file": file_request(grey_file()),
}
REFUSED = {
    "an unknown output": infer_request(outputs=(contract.SCORE, "nope")),
    "an unknown output of another shape": infer_request(
        shape=(1, 64, 64, 3), outputs=("nope",), request_id="abc"
    ),
    "another size": infer_request(shape=(1, 64, 64, 3)),
    "another size, named": infer_request(shape=(1, 64, 64, 3), request_id="abc"),
    "no batch": infer_request(shape=(256, 256, 3)),
    "too many": infer_request(shape=(9, 256, 256, 3)),
    "none": infer_request(shape=(0, 256, 256, 3), content=b""),
    "no shape": infer_request(shape=()),
    "one dimension": infer_request(shape=(1,)),
    "an open dimension": infer_request(shape=(1, -1, 256, 3)),
    "another type": infer_request(kind="FP32"),
    "another type and size": infer_request(kind="FP32", shape=(1, 64, 64, 3)),
    "another name": infer_request(name="PICTURE"),
    "too few bytes": infer_request(content=b"abc"),
    "too many bytes": infer_request(content=PIXELS + b"a"),
    "no bytes": infer_request(content=None),
    "no bytes of another name": infer_request(content=None, name="PICTURE"),
    "no input": service_pb2.ModelInferRequest(model_name=MODEL),
    "another version": infer_request(version="7"),
    "a version that is none": infer_request(version="x"),
    "another model": infer_request("nut"),
    "no model": infer_request(""),
    "a file that is none": file_request(b"nonsense"),
    "two files for one": file_request(b"a", b"b"),
    "half a file": file_request(content=b"\x09\0\0\0a"),
}


@pytest.mark.parametrize("request_", ANSWERED.values(), ids=ANSWERED.keys())
def test_an_image_is_answered_as_triton_does(pair: Pair, request_: Any) -> None:
    real, fake = pair.ask("ModelInfer", request_)
    assert len(real) == 5, real
    assert fake == real


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED.keys())
def test_what_triton_refuses_is_refused_in_its_words(pair: Pair, request_: Any) -> None:
    real, fake = pair.ask("ModelInfer", request_)
    assert len(real) == 2, real
    assert fake == real


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("RepositoryIndex", service_pb2.RepositoryIndexRequest()),
        ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name=MODEL)),
        ("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name="nut")),
    ],
)
@pytest.mark.parametrize("headers", [(), ((ADMIN_METADATA, "another"),)])
def test_the_repository_is_closed_in_tritons_words(
    pair: Pair, method: str, request_: Any, headers: Any
) -> None:
    real, fake = pair.ask(method, request_, headers)
    assert real[0] == "UNAVAILABLE"
    assert fake == real


def test_models_come_and_go_as_on_triton(pair: Pair) -> None:
    def same(method: str, request: Any, headers: Any = ()) -> Any:
        real, fake = pair.ask(method, request, headers)
        assert fake == real
        return real

    def index() -> Any:
        return told(pair.real, "RepositoryIndex", service_pb2.RepositoryIndexRequest(), WITH_KEY)

    load, unload = service_pb2.RepositoryModelLoadRequest, service_pb2.RepositoryModelUnloadRequest
    same("RepositoryIndex", service_pb2.RepositoryIndexRequest(), WITH_KEY)
    same("RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=True), WITH_KEY)
    same("RepositoryModelLoad", load(model_name="nut"), WITH_KEY)
    same("RepositoryModelUnload", unload(model_name="nut"), WITH_KEY)
    gone = unload(model_name=MODEL)
    gone.parameters["unload_dependents"].bool_param = True
    same("RepositoryModelUnload", gone, WITH_KEY)
    wait_for(lambda: any(entry.reason == "unloaded" for entry in index().models))
    same("RepositoryIndex", service_pb2.RepositoryIndexRequest(), WITH_KEY)
    for version in ("", "1", "7"):
        same("ModelInfer", infer_request(version=version))
        for method in ("ModelReady", "ModelMetadata", "ModelConfig"):
            same(method, getattr(service_pb2, f"{method}Request")(name=MODEL, version=version))
    real, fake = pair.ask("ModelInfer", infer_request())
    with pair.server.failing(Fault.NO_VERSION):
        assert told(pair.fake, "ModelInfer", infer_request()) == real == fake
    same("RepositoryModelLoad", load(model_name=MODEL), WITH_KEY)
    same("RepositoryIndex", service_pb2.RepositoryIndexRequest(), WITH_KEY)
    same("ModelInfer", infer_request())


def test_a_process_that_died_is_told_in_tritons_words(
    pair: Pair, stubs_of: Callable[[int], list[int]]
) -> None:
    (stub,) = (
        pid
        for pid in stubs_of(pair.process.pid)
        if f"{MODEL}__segmentation_0_0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(stub, signal.SIGKILL)
    pair.server.fail(Fault.PROCESS_DEAD)
    time.sleep(0.2)
    real, fake = pair.ask("ModelInfer", infer_request())
    pair.process.kill()  # in order, it would wait for the dead process
    assert real[0] == "INTERNAL"
    assert fake == real
