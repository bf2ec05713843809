"""The `onnxruntime` backend, with real ONNX Runtime and Triton's Python side faked."""

from __future__ import annotations

import gc
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import json_format
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import diffusionad_tools
from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_tools.release import model_config
from diffusionad_tools.release.host_config import host_configs

BACKEND = Path(diffusionad_tools.__file__).parent / "backends" / "onnxruntime"
CPU_ONLY = ["CPUExecutionProvider"]
WITH_CUDA = ["CUDAExecutionProvider", *CPU_ONLY]
WITH_TENSORRT = ["TensorrtExecutionProvider", *WITH_CUDA]


@dataclass
class FakeTensor:
    name: str
    array: NDArray[Any]

    def as_numpy(self) -> NDArray[Any]:
        return self.array

    def is_cpu(self) -> bool:
        return True

    @classmethod
    def from_dlpack(cls, name: str, rows: Any) -> FakeTensor:
        return cls(name, np.from_dlpack(rows))


@dataclass
class TensorOnTheGpu:
    """A tensor in device memory, for which this test takes the host's: only DLPack reaches it."""

    array: NDArray[Any]

    def is_cpu(self) -> bool:
        return False

    def to_dlpack(self) -> Any:
        return self.array.__dlpack__()


@dataclass
class FakeRequest:
    inputs: dict[str, NDArray[Any] | TensorOnTheGpu]
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
    """The backend's modules as Triton's stub sees them, and what was logged."""

    model: ModuleType
    session: ModuleType
    device: ModuleType
    signature: ModuleType
    warnings: list[str]
    folder: Path

    def load(self, graph: onnx.ModelProto, config: dict[str, Any], kind: str = "CPU") -> Any:
        (self.folder / "1").mkdir(exist_ok=True)
        onnx.save(graph, self.folder / "1" / "model.onnx")
        return self.initialize(config, kind)

    def initialize(self, config: dict[str, Any], kind: str = "CPU") -> Any:
        instance = self.model.TritonPythonModel()
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

    @property
    def load_error(self) -> type[Exception]:
        error: type[Exception] = self.signature.ModelLoadError
        return error


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, own_priority: None, tmp_path: Path) -> Backend:
    warnings: list[str] = []
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.Tensor = FakeTensor
    utils.InferenceResponse = FakeResponse
    utils.TritonError = str
    utils.Logger = SimpleNamespace(log_warn=warnings.append)
    utils.get_input_tensor_by_name = lambda request, name: (
        request.inputs[name]
        if isinstance(request.inputs[name], TensorOnTheGpu)
        else FakeTensor(name, request.inputs[name])
    )
    monkeypatch.setitem(sys.modules, utils.__name__, utils)
    monkeypatch.syspath_prepend(BACKEND)
    names = ("verdict_counts", "ort_signature", "ort_session", "ort_device", "model")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    _, signature, session, device, model = (importlib.import_module(name) for name in names)
    for name in names:  # to be forgotten afterwards
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    return Backend(model, session, device, signature, warnings, tmp_path)


def segmentation_config() -> dict[str, Any]:
    return as_triton_hands_it_over(Step.SEGMENTATION)


def as_triton_hands_it_over(step: Step) -> dict[str, Any]:
    return handed_over(model_config.step_config("widget", step, 32, [1]))


def handed_over(config: Any) -> dict[str, Any]:
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


def ask_for_an_odd_mode(config: dict[str, Any]) -> None:
    config["parameters"] = {"execution_mode": {"string_value": "2"}}


def ask_for_an_odd_arena(config: dict[str, Any]) -> None:
    config["parameters"] = {"enable_mem_arena": {"string_value": "perhaps"}}


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
        (ask_for_an_odd_mode, "parameter execution_mode is '2'; give 0 or 1"),
        (ask_for_an_odd_arena, "parameter enable_mem_arena is 'perhaps'; give true or false"),
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
    with pytest.raises(backend.load_error) as caught:
        backend.load(graph, config)
    assert message in str(caught.value)


@pytest.mark.parametrize("step", list(NETWORK_STEPS))
def test_every_step_loads_with_its_own_configuration(
    backend: Backend, handmade_model: Any, step: Step
) -> None:
    backend.load(handmade_model().graph(step), as_triton_hands_it_over(step))


def test_fp32_in_the_configuration_of_an_fp16_graph_fails_the_load(backend: Backend) -> None:
    config = addition_config("TYPE_FP32")
    with pytest.raises(backend.load_error, match="is TYPE_FP32 .* but TYPE_FP16"):
        backend.load(addition_graph(TensorProto.FLOAT16), config)


def test_an_fp16_graph_is_served_in_fp16(backend: Backend) -> None:
    model = backend.load(addition_graph(TensorProto.FLOAT16), addition_config("TYPE_FP16"))
    parts = [np.full((n, 4), n, np.float16) for n in (1, 2)]
    responses = model.execute([FakeRequest({"x": part}, ["double"]) for part in parts])
    for part, response in zip(parts, responses, strict=True):
        assert response.arrays()["double"].dtype == np.float16
        np.testing.assert_array_equal(response.arrays()["double"], part * 2)


def test_a_graph_with_a_fixed_batch_cannot_be_batched(backend: Backend) -> None:
    graph = addition_graph(TensorProto.FLOAT, batch=1)
    with pytest.raises(backend.load_error, match="cannot be batched"):
        backend.load(graph, addition_config("TYPE_FP32"))


def test_a_missing_graph_is_named(backend: Backend) -> None:
    with pytest.raises(backend.load_error, match=r"1/model\.onnx: no such file"):
        backend.initialize(segmentation_config())


def test_a_damaged_graph_fails_with_onnx_runtimes_reason(backend: Backend) -> None:
    (backend.folder / "1").mkdir()
    (backend.folder / "1" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(backend.load_error, match=r"model\.onnx: .*INVALID_PROTOBUF"):
        backend.initialize(segmentation_config())


def test_thread_counts_are_read_from_strings(backend: Backend) -> None:
    options = backend.session.session_options(
        {
            "parameters": {
                "intra_op_thread_count": {"string_value": "2"},
                "inter_op_thread_count": {"string_value": "3"},
            }
        }
    )
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 3)


def test_switches_and_modes_are_read_in_the_native_backends_words(backend: Backend) -> None:
    ort = backend.session.ort
    options = backend.session.session_options(
        {
            "optimization": {"graph": {"level": -1}},
            "parameters": {
                "execution_mode": {"string_value": "1"},
                "enable_mem_arena": {"string_value": "false"},
                "enable_mem_pattern": {"string_value": "0"},
            },
        }
    )
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (False, False)


def test_threads_do_not_spin_and_graphs_are_optimised_by_default(backend: Backend) -> None:
    ort = backend.session.ort
    options = backend.session.session_options({})
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def accelerated(name: str, **parameters: str) -> dict[str, Any]:
    """Configure the addition with an accelerator for GPUs."""
    accelerator = {"name": name, "parameters": parameters}
    accelerators = {"gpu_execution_accelerator": [accelerator]}
    return addition_config("TYPE_FP32") | {"optimization": {"execution_accelerators": accelerators}}


def test_an_accelerator_for_gpus_is_ignored_on_a_cpu(backend: Backend) -> None:
    backend.load(addition_graph(TensorProto.FLOAT), accelerated("tensorrt"), "CPU")


@pytest.mark.parametrize("name", ["tensorrt", "cuda", "warp_drive"])
def test_an_accelerator_that_this_onnx_runtime_lacks_fails_the_load_on_a_gpu(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(backend.session.ort, "get_available_providers", lambda: CPU_ONLY)
    with pytest.raises(backend.load_error, match=f"'{name}' is not in the embedded"):
        backend.load(addition_graph(TensorProto.FLOAT), accelerated(name), "GPU")


def test_tensorrt_goes_before_cuda_with_its_options_translated(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.session.ort, "get_available_providers", lambda: WITH_TENSORRT)
    config = accelerated(
        "tensorrt",
        precision_mode="FP16",
        max_workspace_size_bytes="1024",
        trt_engine_cache_path="/var/cache",
    )
    assert backend.session.providers(config, on_gpu=True, device=1) == [
        (
            "TensorrtExecutionProvider",
            {
                "device_id": "1",
                "trt_fp16_enable": "1",
                "trt_max_workspace_size": "1024",
                "trt_engine_cache_path": "/var/cache",
            },
        ),
        ("CUDAExecutionProvider", {"device_id": "1"}),
        "CPUExecutionProvider",
    ]


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("precision_mode", "FP12", "precision_mode is 'FP12'"),
        ("speed", "1", "no parameter 'speed'"),
    ],
)
def test_a_tensorrt_parameter_that_there_is_not_fails_the_load(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, parameter: str, value: str, message: str
) -> None:
    monkeypatch.setattr(backend.session.ort, "get_available_providers", lambda: WITH_TENSORRT)
    with pytest.raises(backend.load_error, match=message):
        backend.session.providers(
            accelerated("tensorrt", **{parameter: value}), on_gpu=True, device=0
        )


def test_the_gpu_configuration_of_a_step_is_understood_here_too(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.session.ort, "get_available_providers", lambda: WITH_TENSORRT)
    default = model_config.step_config("widget", Step.SEGMENTATION, 32, [1])
    config = handed_over(host_configs(default, Step.SEGMENTATION, cores=1)["gpu"])
    (tensorrt, _), *_ = backend.session.providers(config, on_gpu=True, device=0)
    assert tensorrt == "TensorrtExecutionProvider"


def test_tensorrt_whose_libraries_are_missing_fails_the_load_rather_than_run_on_the_cpu(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.session.ort, "get_available_providers", lambda: WITH_TENSORRT)
    fall_back_to_the_cpu(backend, monkeypatch)
    with pytest.raises(backend.load_error, match="does not find TensorRT's libraries"):
        backend.load(addition_graph(TensorProto.FLOAT), accelerated("tensorrt"), "GPU")


def test_a_gpu_instance_without_a_gpu_build_of_onnx_runtime_warns_and_runs_on_the_cpu(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.session.ort, "get_available_providers", lambda: CPU_ONLY)
    model = backend.load(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"), "GPU")
    (warning,) = backend.warnings
    assert "runs on the CPU" in warning
    assert "install onnxruntime-gpu" in warning
    (response,) = model.execute([FakeRequest({"x": np.ones((1, 4), np.float32)}, ["double"])])
    np.testing.assert_array_equal(response.arrays()["double"], np.full((1, 4), 2))


def test_a_gpu_instance_whose_cuda_does_not_load_warns_too(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.session.ort, "get_available_providers", lambda: WITH_CUDA)
    asked = fall_back_to_the_cpu(backend, monkeypatch)
    backend.load(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"), "GPU")
    assert asked == [[("CUDAExecutionProvider", {"device_id": "0"}), "CPUExecutionProvider"]]
    assert "runs on the CPU" in backend.warnings[0]


def fall_back_to_the_cpu(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """Open sessions as onnxruntime does when a provider's libraries do not load."""
    open_session = backend.session.ort.InferenceSession
    asked: list[list[Any]] = []

    def open_on_the_cpu(path: str, options: Any, providers: list[Any]) -> Any:
        asked.append(providers)
        return open_session(path, options, providers=CPU_ONLY)

    monkeypatch.setattr(backend.session.ort, "InferenceSession", open_on_the_cpu)
    return asked


def test_a_cpu_instance_does_not_warn(backend: Backend) -> None:
    backend.load(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"), "CPU")
    assert backend.warnings == []


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


class HostForDevice:
    """A session that takes the host's memory for the GPU's, and notes what is bound where.

    The graph, its run and the binding by address are ONNX Runtime's own.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self.bound: list[list[tuple[str, str]]] = []  # of each run: the tensor's name and device

    def get_providers(self) -> list[str]:
        return WITH_CUDA

    def get_inputs(self) -> Any:
        return self.session.get_inputs()

    def get_outputs(self) -> Any:
        return self.session.get_outputs()

    def run_with_iobinding(self, binding: Any) -> None:
        self.session.run_with_iobinding(binding)

    def io_binding(self) -> Any:
        binding = self.session.io_binding()
        bound: list[tuple[str, str]] = []
        self.bound.append(bound)

        def bind_input(name: str, device: str, number: int, *described: Any) -> None:
            bound.append((name, f"{device}:{number}"))
            binding.bind_input(name, "cpu", 0, *described)

        def bind_cpu_input(name: str, array: NDArray[Any]) -> None:
            bound.append((name, "cpu"))
            binding.bind_cpu_input(name, array)

        def bind_output(name: str, device: str, number: int) -> None:
            bound.append((name, f"{device}:{number}"))
            binding.bind_output(name, "cpu")

        return with_binding(binding, bind_input, bind_cpu_input, bind_output)


def with_binding(binding: Any, *replaced: Callable[..., None]) -> Any:
    class Binding(type(binding)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.__dict__ |= binding.__dict__
            self.__dict__ |= {function.__name__: function for function in replaced}

    return Binding()


@pytest.fixture
def on_the_gpu(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Loads a graph as on a GPU; gives the model and its session."""
    open_session = backend.session.ort.InferenceSession
    monkeypatch.setattr(backend.session.ort, "get_available_providers", lambda: WITH_CUDA)
    monkeypatch.setattr(
        backend.session.ort,
        "InferenceSession",
        lambda path, options, providers: HostForDevice(
            open_session(path, options, providers=CPU_ONLY)
        ),
    )
    monkeypatch.setattr(backend.device, "CUDA_DEVICE", 1)  # numpy takes the host's memory only

    def load(graph: onnx.ModelProto, config: dict[str, Any]) -> Any:
        model = backend.load(graph, config, "GPU")
        return model, model._runner._session

    return load


def test_on_a_gpu_requests_from_the_host_are_one_run_whose_outputs_stay_on_the_device(
    on_the_gpu: Callable[..., Any],
) -> None:
    model, session = on_the_gpu(addition_graph(TensorProto.FLOAT), addition_config("TYPE_FP32"))
    parts = [np.full((n, 4), n, np.float32) for n in (1, 3, 2)]

    responses = model.execute([FakeRequest({"x": part}, ["double", "square"]) for part in parts])

    assert session.bound == [[("x", "cpu"), ("double", "cuda:0"), ("square", "cuda:0")]]
    for part, response in zip(parts, responses, strict=True):
        np.testing.assert_array_equal(response.arrays()["double"], part * 2)
        np.testing.assert_array_equal(response.arrays()["square"], part * part)


@pytest.mark.parametrize("data_type", ["TYPE_FP32", "TYPE_FP16"])
def test_what_lies_on_the_gpu_already_is_bound_where_it_lies(
    on_the_gpu: Callable[..., Any], data_type: str
) -> None:
    kinds = {"TYPE_FP32": TensorProto.FLOAT, "TYPE_FP16": TensorProto.FLOAT16}
    dtype = {"TYPE_FP32": np.float32, "TYPE_FP16": np.float16}[data_type]
    model, session = on_the_gpu(addition_graph(kinds[data_type]), addition_config(data_type))
    parts = [np.full((n, 4), n, dtype) for n in (1, 3)]

    responses = model.execute(
        [FakeRequest({"x": TensorOnTheGpu(part)}, ["double"]) for part in parts]
    )

    assert session.bound == [[("x", "cuda:0"), ("double", "cuda:0")]] * 2  # one run each
    for part, response in zip(parts, responses, strict=True):
        np.testing.assert_array_equal(response.arrays()["double"], part * 2)


def test_a_step_with_one_input_from_the_host_and_one_on_the_gpu_takes_both_where_they_are(
    on_the_gpu: Callable[..., Any], handmade_model: Any
) -> None:
    model, session = on_the_gpu(handmade_model().graph(Step.SEGMENTATION), segmentation_config())
    (image,) = handmade_model().images(1)
    inputs = {
        "IMAGE": image[np.newaxis],
        "reconstruction": TensorOnTheGpu(np.zeros((1, 3, 32, 32), np.float32)),
    }

    (response,) = model.execute([FakeRequest(inputs, ["SCORE"])])

    assert session.bound == [[("IMAGE", "cpu"), ("reconstruction", "cuda:0"), ("SCORE", "cuda:0")]]
    x = image.astype(np.float32) / 127.5 - 1
    top = np.sort((np.abs(x).mean(axis=-1) / 2).ravel())[-50:]
    np.testing.assert_allclose(response.arrays()["SCORE"], [[top.mean()]], rtol=1e-5)


def test_on_a_gpu_too_a_request_that_fails_spares_its_neighbours(
    on_the_gpu: Callable[..., Any],
) -> None:
    model, _ = on_the_gpu(lookup_graph(), lookup_config())
    requests = [FakeRequest({"index": np.array([[i]])}, ["value"]) for i in (0, 99, 2)]
    good, bad, other = model.execute(requests)
    assert good.arrays()["value"] == [[10]]
    assert other.arrays()["value"] == [[30]]
    assert "99" in bad.error


def test_an_output_lives_as_long_as_someone_holds_some_of_its_rows(backend: Backend) -> None:
    owner = np.arange(6, dtype=np.float32).reshape(3, 2)
    rows = backend.device.Rows(owner, owner.ctypes.data + 8, (2, 2), owner.dtype, (1, 0))
    taken = np.from_dlpack(rows)
    unused = rows.__dlpack__()
    del owner, rows
    assert len(backend.device._handed_out) == 2
    np.testing.assert_array_equal(taken, [[2, 3], [4, 5]])
    del unused
    gc.collect()
    assert len(backend.device._handed_out) == 1
    del taken
    gc.collect()
    assert len(backend.device._handed_out) == 0


@pytest.mark.gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs a GPU and onnxruntime-gpu in place of onnxruntime",
)
def test_a_real_gpu_computes_what_the_cpu_does_without_leaving_the_device(
    backend: Backend, handmade_model: Any
) -> None:
    graph = handmade_model().graph(Step.SEGMENTATION)
    (image,) = handmade_model().images(1)
    inputs = {"IMAGE": image[np.newaxis], "reconstruction": np.zeros((1, 3, 32, 32), np.float32)}
    (expected,) = backend.load(graph, segmentation_config()).execute(
        [FakeRequest(dict(inputs), ["ANOMALY_MAP"])]
    )
    model = backend.load(graph, segmentation_config(), "GPU")
    assert backend.warnings == []
    parts = [{name: FakeTensor(name, array) for name, array in inputs.items()}]
    (answer,) = model._runner.run(parts, ["ANOMALY_MAP"])
    found = answer["ANOMALY_MAP"]
    assert found.__dlpack_device__() == (2, 0)
    assert found.owner.device_name() == "cuda"
    np.testing.assert_allclose(found.owner.numpy(), expected.arrays()["ANOMALY_MAP"], atol=1e-5)


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
    session = model._runner._session

    def run(names: list[str], inputs: dict[str, NDArray[Any]]) -> Any:
        runs.append(names)
        return session.run(names, inputs)

    model._runner._session = SimpleNamespace(run=run)
    return runs
