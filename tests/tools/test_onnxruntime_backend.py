"""The `onnxruntime` backend, with real ONNX Runtime and Triton's Python side faked."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import json_format
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import diffusionad_tools
from diffusionad_client.contract import Step
from diffusionad_tools.release import model_config

MODEL_FILE = Path(diffusionad_tools.__file__).parent / "backends" / "onnxruntime" / "model.py"


@dataclass
class FakeTensor:
    name: str
    array: NDArray[Any]

    def as_numpy(self) -> NDArray[Any]:
        return self.array


@dataclass
class FakeRequest:
    inputs: dict[str, NDArray[Any]]
    outputs: list[str]

    def requested_output_names(self) -> list[str]:
        return self.outputs


@dataclass
class FakeResponse:
    output_tensors: list[FakeTensor] = field(default_factory=list)
    error: str | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        assert self.error is None
        return {tensor.name: tensor.array for tensor in self.output_tensors}


@dataclass
class Backend:
    """The module as Triton's stub sees it, and what it logged."""

    module: ModuleType
    warnings: list[str]
    folder: Path

    def load(self, graph: onnx.ModelProto, config: dict[str, Any], kind: str = "CPU") -> Any:
        (self.folder / "1").mkdir(exist_ok=True)
        onnx.save(graph, self.folder / "1" / "model.onnx")
        return self.initialize(config, kind)

    def initialize(self, config: dict[str, Any], kind: str = "CPU") -> Any:
        instance = self.module.TritonPythonModel()
        instance.initialize(
            {
                "model_config": json.dumps(config),
                "model_repository": str(self.folder),
                "model_version": "1",
                "model_instance_kind": kind,
                "model_instance_device_id": "0",
            }
        )
        return instance


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Backend:
    warnings: list[str] = []
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.Tensor = FakeTensor
    utils.InferenceResponse = FakeResponse
    utils.TritonError = str
    utils.Logger = SimpleNamespace(log_warn=warnings.append)
    utils.get_input_tensor_by_name = lambda request, name: FakeTensor(name, request.inputs[name])
    monkeypatch.setitem(sys.modules, utils.__name__, utils)
    spec = importlib.util.spec_from_file_location("onnxruntime_backend_model", MODEL_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return Backend(module, warnings, tmp_path)


def segmentation_config() -> dict[str, Any]:
    return as_triton_hands_it_over(Step.SEGMENTATION)


def as_triton_hands_it_over(step: Step) -> dict[str, Any]:
    config = model_config.step_config("widget", step, 32, [1])
    return dict(json_format.MessageToDict(config, preserving_proto_field_name=True))


def tensor(config: dict[str, Any], name: str) -> dict[str, Any]:
    tensors: list[dict[str, Any]] = [*config["input"], *config["output"]]
    (found,) = (t for t in tensors if t["name"] == name)
    return found


def rename_score(config: dict[str, Any]) -> None:
    tensor(config, "SCORE")["name"] = "POINTS"


def rename_input(config: dict[str, Any]) -> None:
    tensor(config, "reconstruction")["name"] = "normal"


def drop_input(config: dict[str, Any]) -> None:
    config["input"].pop()


def add_input(config: dict[str, Any]) -> None:
    config["input"].append({"name": "MASK", "data_type": "TYPE_FP32", "dims": ["1"]})


def change_type(config: dict[str, Any]) -> None:
    tensor(config, "IMAGE")["data_type"] = "TYPE_FP32"


def change_dims(config: dict[str, Any]) -> None:
    tensor(config, "ANOMALY_MAP")["dims"] = ["32", "31"]


def change_rank(config: dict[str, Any]) -> None:
    tensor(config, "ANOMALY_MAP")["dims"] = ["1", "32", "32"]


def leave_dims_free(config: dict[str, Any]) -> None:
    tensor(config, "ANOMALY_MAP")["dims"] = ["-1", "32"]


def stop_batching(config: dict[str, Any]) -> None:
    config["max_batch_size"] = 0


def use_openvino(config: dict[str, Any]) -> None:
    config["optimization"] = {
        "execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}
    }


def ask_for_odd_threads(config: dict[str, Any]) -> None:
    config["parameters"] = {"intra_op_thread_count": {"string_value": "two"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            rename_score,
            "the graph has no output 'POINTS'; its outputs are ['ANOMALY_MAP', 'SCORE']",
        ),
        (rename_input, "the graph needs the inputs ['IMAGE', 'reconstruction']"),
        (drop_input, "config.pbtxt lacks ['reconstruction']"),
        (add_input, "the graph has no input 'MASK'"),
        (change_type, "input 'IMAGE' is TYPE_FP32 in config.pbtxt but TYPE_UINT8 in the graph"),
        (change_dims, "'ANOMALY_MAP' has shape [-1, 32, 31] in config.pbtxt"),
        (change_rank, "'ANOMALY_MAP' has shape [-1, 1, 32, 32] in config.pbtxt"),
        (leave_dims_free, "but [-1, 32, 32] in the graph"),
        (stop_batching, "'IMAGE' has shape [32, 32, 3] in config.pbtxt but [-1, 32, 32, 3]"),
        (use_openvino, "the execution accelerator 'openvino' is not in the embedded server"),
        (ask_for_odd_threads, "parameter intra_op_thread_count is 'two'"),
    ],
)
def test_a_configuration_that_does_not_fit_its_graph_fails_the_load(
    backend: Backend,
    handmade_model: Any,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    config = segmentation_config()
    graph = handmade_model().graph(Step.SEGMENTATION)
    backend.load(graph, config)  # it fits
    change(config)
    with pytest.raises(backend.module.ModelLoadError) as caught:
        backend.load(graph, config)
    assert message in str(caught.value)


@pytest.mark.parametrize("step", list(Step))
def test_every_step_loads_with_its_own_configuration(
    backend: Backend, handmade_model: Any, step: Step
) -> None:
    backend.load(handmade_model().graph(step), as_triton_hands_it_over(step))


def test_fp32_in_the_configuration_of_an_fp16_graph_fails_the_load(backend: Backend) -> None:
    config = addition_config("TYPE_FP32")
    with pytest.raises(backend.module.ModelLoadError, match="is TYPE_FP32 .* but TYPE_FP16"):
        backend.load(addition_graph(TensorProto.FLOAT16), config)


def test_a_graph_with_a_fixed_batch_cannot_be_batched(backend: Backend) -> None:
    graph = addition_graph(TensorProto.FLOAT, batch=1)
    with pytest.raises(backend.module.ModelLoadError, match="cannot be batched"):
        backend.load(graph, addition_config("TYPE_FP32"))


def test_a_missing_graph_is_named(backend: Backend) -> None:
    with pytest.raises(backend.module.ModelLoadError, match=r"1/model\.onnx: no such file"):
        backend.initialize(segmentation_config())


def test_a_damaged_graph_fails_with_onnx_runtimes_reason(backend: Backend) -> None:
    (backend.folder / "1").mkdir()
    (backend.folder / "1" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(backend.module.ModelLoadError, match=r"model\.onnx: .*INVALID_PROTOBUF"):
        backend.initialize(segmentation_config())


def test_thread_counts_are_read_from_strings(backend: Backend) -> None:
    options = backend.module.session_options(
        {
            "parameters": {
                "intra_op_thread_count": {"string_value": "2"},
                "inter_op_thread_count": {"string_value": "3"},
            }
        }
    )
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 3)


def test_an_accelerator_for_gpus_is_ignored_on_a_cpu(backend: Backend) -> None:
    accelerators = {"gpu_execution_accelerator": [{"name": "tensorrt"}]}
    config = addition_config("TYPE_FP32") | {
        "optimization": {"execution_accelerators": accelerators}
    }
    backend.load(addition_graph(TensorProto.FLOAT), config, "CPU")
    with pytest.raises(backend.module.ModelLoadError, match="'tensorrt' is not in the embedded"):
        backend.load(addition_graph(TensorProto.FLOAT), config, "GPU")


def test_a_gpu_instance_without_a_gpu_build_of_onnx_runtime_warns_and_runs_on_the_cpu(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_cpu = ["CPUExecutionProvider"]
    monkeypatch.setattr(backend.module.ort, "get_available_providers", lambda: only_cpu)
    assert backend.module.providers(on_gpu=True, device=1) == only_cpu
    backend.load(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"), "GPU")
    (warning,) = backend.warnings
    assert "runs on the CPU" in warning
    assert "install onnxruntime-gpu" in warning


def test_a_gpu_instance_whose_cuda_does_not_load_warns_too(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_session = backend.module.open_session
    asked: list[list[Any]] = []

    def open_without_cuda(path: str, options: Any, where: list[Any]) -> Any:
        asked.append(where)
        return open_session(path, options, ["CPUExecutionProvider"])  # what onnxruntime falls to

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(backend.module.ort, "get_available_providers", lambda: both)
    monkeypatch.setattr(backend.module, "open_session", open_without_cuda)
    backend.load(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"), "GPU")
    assert asked[0][0][0] == "CUDAExecutionProvider"
    assert "runs on the CPU" in backend.warnings[0]


def test_a_cpu_instance_does_not_warn(backend: Backend) -> None:
    backend.load(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"), "CPU")
    assert backend.warnings == []


def test_a_gpu_instance_runs_on_its_own_device(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(backend.module.ort, "get_available_providers", lambda: both)
    chosen = backend.module.providers(on_gpu=True, device=1)
    assert chosen == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]


def test_batched_requests_are_one_run_and_each_gets_its_own_rows(backend: Backend) -> None:
    model = backend.load(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"))
    runs = count_runs(model)
    parts = [np.full((n, 4), n, np.float32) for n in (1, 3, 2)]

    responses = model.execute([FakeRequest({"x": part}, ["double"]) for part in parts])

    assert runs == [["double"]]
    for part, response in zip(parts, responses, strict=True):
        np.testing.assert_array_equal(response.arrays()["double"], part * 2)


def test_only_the_outputs_that_a_request_asks_for_are_sent(backend: Backend) -> None:
    model = backend.load(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"))
    runs = count_runs(model)
    x = np.ones((1, 4), np.float32)

    first, second = model.execute(
        [FakeRequest({"x": x}, ["square"]), FakeRequest({"x": x}, ["square", "double"])]
    )

    assert runs == [["double", "square"]]
    assert set(first.arrays()) == {"square"}
    assert set(second.arrays()) == {"square", "double"}
    model.execute([FakeRequest({"x": x}, ["square"])])
    assert runs[1:] == [["square"]]


def test_a_model_without_batching_runs_each_request_alone(backend: Backend) -> None:
    graph = addition_graph(TensorProto.FLOAT, batch=1)
    config = addition_config("TYPE_FP32") | {"max_batch_size": 0}
    for described in (*config["input"], *config["output"]):
        described["dims"] = ["1", "4"]
    model = backend.load(graph, config)
    x = np.ones((1, 4), np.float32)

    responses = model.execute([FakeRequest({"x": x * n}, ["double"]) for n in (1, 2)])

    for n, response in zip((1, 2), responses, strict=True):
        np.testing.assert_array_equal(response.arrays()["double"], x * 2 * n)


def test_a_request_that_fails_gets_onnx_runtimes_reason_and_spares_its_neighbours(
    backend: Backend,
) -> None:
    model = backend.load(lookup_graph(), lookup_config())
    requests = [FakeRequest({"index": np.array([[i]])}, ["value"]) for i in (0, 99, 2)]

    good, bad, other = model.execute(requests)

    assert good.arrays()["value"] == [[10]]
    assert other.arrays()["value"] == [[30]]
    assert "99" in bad.error
    assert bad.output_tensors == []


def addition_graph(data_type: int, batch: int | str = "batch") -> onnx.ModelProto:
    """Build a graph with x of shape (batch, 4), and double = x + x, square = x * x."""
    shape = [batch, 4]
    return build(
        [helper.make_node("Add", ["x", "x"], ["double"]),
         helper.make_node("Mul", ["x", "x"], ["square"])],
        [helper.make_tensor_value_info("x", data_type, shape)],
        [helper.make_tensor_value_info(name, data_type, shape) for name in ("double", "square")],
    )  # fmt: skip


def addition_config(data_type: str) -> dict[str, Any]:
    names = {"input": ["x"], "output": ["double", "square"]}
    described = {
        kind: [{"name": name, "data_type": data_type, "dims": ["4"]} for name in of_kind]
        for kind, of_kind in names.items()
    }
    return {"name": "addition", "max_batch_size": 8, **described}


def lookup_graph() -> onnx.ModelProto:
    """Build a graph that fails for an index outside of 0 to 2."""
    return build(
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["batch", 1])],
        [helper.make_tensor_value_info("value", TensorProto.INT64, ["batch", 1])],
        [numpy_helper.from_array(np.array([10, 20, 30]), "table")],
    )


def lookup_config() -> dict[str, Any]:
    return {
        "name": "lookup",
        "max_batch_size": 8,
        "input": [{"name": "index", "data_type": "TYPE_INT64", "dims": ["1"]}],
        "output": [{"name": "value", "data_type": "TYPE_INT64", "dims": ["1"]}],
    }


def build(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "handmade", inputs, outputs, constants or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model


def count_runs(model: Any) -> list[list[str]]:
    """Record the output names of every run of a loaded model's graph."""
    runs: list[list[str]] = []
    session = model._session

    def run(names: list[str], inputs: dict[str, NDArray[Any]]) -> Any:
        runs.append(names)
        return session.run(names, inputs)

    model._session = SimpleNamespace(run=run)
    return runs
