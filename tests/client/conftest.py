"""A server that speaks Triton's gRPC protocol in this process, and images to send to it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import (
    Calibration,
    ReleaseMetadata,
    Thresholds,
    TrainingSummary,
    Verdict,
)

SIZE = 32


def make_metadata(category: str = "screw", **changes: Any) -> ReleaseMetadata:
    document = ReleaseMetadata(
        category=category,
        release="a" * 64,
        preset="edge",
        size=SIZE,
        thresholds=Thresholds(accept=0.3, reject=0.6),
        pixel_threshold=0.5,
        calibration=Calibration(good_images=40, false_reject_rate=0.01, review_rate=0.05),
        training=TrainingSummary(images=100, steps=1000, seed=0, data_digest="d" * 64),
        digests={step.value: "0" * 64 for step in contract.NETWORK_STEPS},
        metrics={"image_auroc": 0.98, "pixel_auroc": None},
    )
    return replace(document, **changes)


def make_config(metadata: ReleaseMetadata) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig(name=metadata.category, max_batch_size=8)
    signature = contract.ensemble_signature(metadata.size, metadata.contract)
    for tensors, added in ((signature.inputs, config.input), (signature.outputs, config.output)):
        for spec in tensors:
            name = "STRING" if spec.dtype == "BYTES" else spec.dtype
            kind = model_config_pb2.DataType.Value(f"TYPE_{name}")
            added.add(name=spec.name, data_type=kind, dims=spec.dims)
    config.parameters[contract.METADATA_PARAMETER].string_value = metadata.to_json()
    return config


def judgement(score: Any, config: model_config_pb2.ModelConfig) -> dict[str, Any]:
    """Give the outputs by which a release of contract 2 says what it judged by."""
    metadata = ReleaseMetadata.from_json(
        config.parameters[contract.METADATA_PARAMETER].string_value
    )
    limits = metadata.thresholds
    numbers = np.array([[limits.accept, limits.reject, metadata.pixel_threshold]], np.float32)
    accept, reject, _ = numbers[0]
    verdict = limits.verdict(float("nan"))
    if score[0, 0] >= reject:
        verdict = Verdict.NG
    elif score[0, 0] < accept:
        verdict = Verdict.OK
    return {
        contract.VERDICT: np.array([[verdict.value.encode()]], np.object_),
        contract.THRESHOLDS: numbers,
        contract.RELEASE: np.array([[metadata.release.encode()]], np.object_),
    }


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers like Triton. Its one model scores an image by its mean red, of 0 to 1."""

    configs: dict[tuple[str, str], model_config_pb2.ModelConfig] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    requests: list[service_pb2.ModelInferRequest] = field(default_factory=list)
    failures: dict[str, tuple[grpc.StatusCode, str]] = field(default_factory=dict)
    before_infer: Callable[[], None] = lambda: None
    omitted: set[str] = field(default_factory=set)  # outputs left out of answers
    altered: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)  # outputs sent instead
    ready: bool = True
    url: str = ""
    # explicit model control
    admin_key: str | None = None  # without it, the repository is open
    loadable: dict[str, ReleaseMetadata] = field(default_factory=dict)  # not loaded yet
    broken: dict[str, str] = field(default_factory=dict)  # step -> why it failed to load

    def serve(self, metadata: ReleaseMetadata, version: str = "1") -> None:
        """Serve this release and no other version of the category."""
        for key in [key for key in self.configs if key[0] == metadata.category]:
            del self.configs[key]
        self.configs[metadata.category, version] = make_config(metadata)

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("ServerReady", context)
        return service_pb2.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("ModelReady", context)
        return service_pb2.ModelReadyResponse(ready=any(n == request.name for n, _ in self.configs))

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("ServerMetadata", context)
        return service_pb2.ServerMetadataResponse(name="triton", version="2.51.0")

    def RepositoryIndex(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("RepositoryIndex", context)
        self._check_key(context)
        answer = service_pb2.RepositoryIndexResponse()
        for category in self.loadable:
            answer.models.add(name=category)
            for step in map(partial(contract.step_model, category), contract.NETWORK_STEPS):
                entry = answer.models.add(name=step)
                if step in self.broken:
                    entry.version, entry.state, entry.reason = "1", "UNAVAILABLE", self.broken[step]
        for model, version in self.configs:
            answer.models.add(name=model, version=version, state="READY")
        answer.models.add(name="loading", version="1", state="UNAVAILABLE")
        answer.models.add(name="screw__segmentation", version="1", state="READY")
        return answer

    def RepositoryModelLoad(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("RepositoryModelLoad", context)
        self._check_key(context)
        if request.model_name not in self.loadable:
            message = f"failed to load '{request.model_name}', failed to poll from model repository"
            context.abort(grpc.StatusCode.INTERNAL, message)
        self.serve(self.loadable[request.model_name])
        return service_pb2.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("RepositoryModelUnload", context)
        self._check_key(context)
        assert request.parameters["unload_dependents"].bool_param
        for key in [key for key in self.configs if key[0] == request.model_name]:
            del self.configs[key]
        return service_pb2.RepositoryModelUnloadResponse()

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("ModelMetadata", context)
        versions = self._versions(request.name, context)
        return service_pb2.ModelMetadataResponse(name=request.name, versions=versions)

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("ModelConfig", context)
        config = self.configs.get((request.name, request.version))
        if config is None:
            self._refuse_unknown(request.name, context)
        return service_pb2.ModelConfigResponse(config=config)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._meet("ModelInfer", context)
        self.before_infer()
        self.requests.append(request)
        version = self._versions(request.model_name, context)[-1]
        config = self.configs[request.model_name, version]
        self._check_tensors(request, config, context)
        batch = np.frombuffer(request.raw_input_contents[0], np.uint8)
        batch = batch.reshape(tuple(request.inputs[0].shape))
        red = batch[..., 0].astype(np.float32) / 255
        score = red.mean(axis=(1, 2))[:, np.newaxis].astype(np.float32)
        outputs = {
            contract.SCORE: score,
            contract.ANOMALY_MAP: red,
            contract.RECONSTRUCTION: 255 - batch,
            **judgement(score, config),
            **self.altered,
        }
        answer = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=version
        )
        for asked in request.outputs:
            if asked.name in self.omitted:
                continue
            array = outputs[asked.name]
            kind = {"u": "UINT8", "f": "FP32", "O": "BYTES"}[array.dtype.kind]
            answer.outputs.add(name=asked.name, datatype=kind, shape=array.shape)
            content = serialize_byte_tensor(array).item() if kind == "BYTES" else array.tobytes()
            answer.raw_output_contents.append(content)
        return answer

    def _check_tensors(self, request: Any, config: Any, context: grpc.ServicerContext) -> None:
        model, declared = request.model_name, [-1, *config.input[0].dims]
        sent = list(request.inputs[0].shape)
        if sent[1:] != declared[1:]:
            message = f"unexpected shape for input 'IMAGE' for model '{model}'. Expected "
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{message}{declared}, got {sent}")
        for asked in request.outputs:
            if asked.name not in {output.name for output in config.output}:
                message = f"unexpected inference output '{asked.name}' for model '{model}'"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)

    def _versions(self, model: str, context: grpc.ServicerContext) -> list[str]:
        versions = [version for name, version in self.configs if name == model]
        if not versions:
            self._refuse_unknown(model, context)
        return versions

    def _refuse_unknown(self, model: str, context: grpc.ServicerContext) -> None:
        context.abort(
            grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{model}' is not found"
        )

    def _check_key(self, context: grpc.ServicerContext) -> None:
        header = "triton-grpc-protocol-diffusionad-admin-key"
        sent = dict(context.invocation_metadata()).get(header)
        if self.admin_key is not None and sent != self.admin_key:
            message = f"This protocol is restricted, expecting header '{header}'"
            context.abort(grpc.StatusCode.UNAVAILABLE, message)

    def _meet(self, call: str, context: grpc.ServicerContext) -> None:
        self.calls.append(call)
        if call in self.failures:
            context.abort(*self.failures[call])


@pytest.fixture(name="make_metadata")
def fixture_make_metadata() -> Callable[..., ReleaseMetadata]:
    return make_metadata


@pytest.fixture
def empty_triton() -> Iterator[FakeTriton]:
    """A server without models."""
    with running_triton() as triton:
        yield triton


@contextmanager
def running_triton() -> Iterator[FakeTriton]:
    triton = FakeTriton()
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    triton.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield triton
    server.stop(grace=None).wait()


@pytest.fixture
def triton(empty_triton: FakeTriton) -> FakeTriton:
    """A server with the category "screw"."""
    empty_triton.serve(make_metadata())
    return empty_triton


@pytest.fixture
def two_tritons(triton: FakeTriton) -> Iterator[tuple[FakeTriton, FakeTriton]]:
    """Two servers with the category "screw"."""
    with running_triton() as other:
        other.serve(make_metadata())
        yield triton, other


@pytest.fixture
def dead_url() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture
def save_image() -> Callable[..., Path]:
    """Write an image of one red, of 0 to 255, which the fake server makes its score."""

    def save(path: Path, red: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (red, 90, 90)).save(path)
        return path

    return save
