"""Serve `backend: "onnxruntime"` models through Triton's Python backend.

An embedded Triton has no native ONNX Runtime backend; this file stands in for
it under the same name, so that one `config.pbtxt` is served by either. It
refuses what the native backend refuses (names, data types and shapes that the
graph does not have), so that what loads here loads there.

Runs inside Triton's stub process: it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

Json = dict[str, Any]
Tensors = dict[str, np.ndarray[Any, np.dtype[Any]]]

# onnxruntime raises one class for each status, without a base of their own,
# and Python's own for arguments that it refuses before a run.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(ort_state).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    TypeError,
    ValueError,
)

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
DEFAULT_FILE = "model.onnx"
THREAD_PARAMETERS = {  # Triton's parameter -> the option of onnxruntime.SessionOptions
    "intra_op_thread_count": "intra_op_num_threads",
    "inter_op_thread_count": "inter_op_num_threads",
}
TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class ModelLoadError(Exception):
    """The graph and its `config.pbtxt` do not belong together."""


@dataclass(frozen=True)
class GraphTensor:
    """An input or output as the ONNX graph declares it; a free dimension is -1."""

    name: str
    data_type: str  # Triton's, such as TYPE_FP32
    shape: tuple[int, ...]


class TritonPythonModel:
    """One instance of one version of a model. Triton calls the methods by these names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph and check it against the configuration. Raises `ModelLoadError`."""
        config = json.loads(args["model_config"])
        path = os.path.join(
            args["model_repository"],
            args["model_version"],
            config.get("default_model_filename") or DEFAULT_FILE,
        )
        on_gpu = args["model_instance_kind"] == "GPU"
        refuse_accelerators(config, on_gpu)
        self._session = open_session(
            path, session_options(config), providers(on_gpu, int(args["model_instance_device_id"]))
        )
        if on_gpu and self._session.get_providers()[0] != CUDA:
            pb_utils.Logger.log_warn(
                "this onnxruntime cannot use the GPU, the model runs on the CPU; install "
                "onnxruntime-gpu in place of onnxruntime, and the CUDA and cuDNN that it names"
            )
        check_signature(config, graph_tensors(self._session.get_inputs()),
                        graph_tensors(self._session.get_outputs()))  # fmt: skip
        self._batches = config["max_batch_size"] > 0
        self._inputs = [tensor["name"] for tensor in config["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer what the dynamic batcher put together with one run of the graph."""
        if self._batches:
            return self._answer_together(requests)
        return [self._answer_together([request])[0] for request in requests]

    def _answer_together(self, requests: list[Any]) -> list[Any]:
        inputs = [self._read(request) for request in requests]
        wanted = [list(request.requested_output_names()) for request in requests]
        try:
            outputs = self._run(concatenate(inputs), sorted({n for names in wanted for n in names}))
        except ORT_ERRORS as exc:
            if len(requests) == 1:
                return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc)))]
            # One request spoils the batch. Alone, only the guilty one fails.
            return [self._answer_together([request])[0] for request in requests]
        sizes = [len(next(iter(tensors.values()))) if self._batches else 1 for tensors in inputs]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, part[name]) for name in names])
            for names, part in zip(wanted, split(outputs, sizes), strict=True)
        ]

    def _read(self, request: Any) -> Tensors:
        return {
            name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in self._inputs
        }

    def _run(self, inputs: Tensors, names: list[str]) -> Tensors:
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def concatenate(parts: list[Tensors]) -> Tensors:
    """Stack requests along the batch dimension."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def split(outputs: Tensors, sizes: list[int]) -> list[Tensors]:
    """Undo `concatenate`: give each request its rows of every output."""
    if len(sizes) == 1:
        return [outputs]
    ends = np.cumsum(sizes)[:-1]
    cut = {name: np.split(array, ends) for name, array in outputs.items()}
    return [{name: rows[i] for name, rows in cut.items()} for i in range(len(sizes))]


def session_options(config: Json) -> ort.SessionOptions:
    """Read the options that the native backend reads from `parameters`, which are strings."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; the rest drowns Triton's log
    # Every model here is a process of its own: threads that spin while idle
    # would take the cores from the model that runs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for parameter, option in THREAD_PARAMETERS.items():
        if parameter in config.get("parameters", {}):
            value = config["parameters"][parameter]["string_value"]
            try:
                setattr(options, option, int(value))
            except ValueError as exc:
                raise ModelLoadError(
                    f"parameter {parameter} is {value!r}; give a number of threads, such as "
                    f'{{ key: "{parameter}" value {{ string_value: "2" }} }}'
                ) from exc
    return options


def refuse_accelerators(config: Json, on_gpu: bool) -> None:
    """Refuse execution accelerators, which this backend has none of.

    The native backend ignores those for a GPU on an instance without one; so does this.
    """
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    asked = list(accelerators.get("cpu_execution_accelerator", []))
    if on_gpu:
        asked += accelerators.get("gpu_execution_accelerator", [])
    if asked:
        raise ModelLoadError(
            f"the execution accelerator {asked[0].get('name')!r} is not in the embedded server; "
            "remove it from config.pbtxt, or serve with NVIDIA's container"
        )


def providers(on_gpu: bool, device: int) -> list[Any]:
    """Choose where the graph runs: on the instance's device if this onnxruntime is made for it.

    Whether the device can be reached is known only once a session is open.
    """
    if on_gpu and CUDA in ort.get_available_providers():
        return [(CUDA, {"device_id": device}), CPU]
    return [CPU]


def open_session(path: str, options: ort.SessionOptions, where: list[Any]) -> ort.InferenceSession:
    """Load the graph. Raises `ModelLoadError` with ONNX Runtime's own reason."""
    if not os.path.isfile(path):
        raise ModelLoadError(f"{path}: no such file")
    try:
        return ort.InferenceSession(path, options, providers=where)
    except ORT_ERRORS as exc:
        raise ModelLoadError(f"{path}: {exc}") from exc


def graph_tensors(arguments: list[Any]) -> dict[str, GraphTensor]:
    """Translate what an onnxruntime session says of its inputs or outputs."""
    return {
        a.name: GraphTensor(
            a.name,
            TRITON_TYPES.get(a.type, a.type),
            tuple(d if isinstance(d, int) else -1 for d in a.shape),
        )
        for a in arguments
    }


def check_signature(
    config: Json, inputs: dict[str, GraphTensor], outputs: dict[str, GraphTensor]
) -> None:
    """Raise `ModelLoadError` unless the configuration names what the graph has.

    Every input of the graph must be configured; outputs may be left out.
    """
    configured = [tensor["name"] for tensor in config["input"]]
    missing = sorted(set(inputs) - set(configured))
    if missing:
        raise ModelLoadError(
            f"the graph needs the inputs {sorted(inputs)}; config.pbtxt lacks {missing}"
        )
    if not config["output"]:
        raise ModelLoadError(f"config.pbtxt names no output; the graph has {sorted(outputs)}")
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for tensor in config[kind]:
            check_tensor(kind, tensor, tensors, batches=config["max_batch_size"] > 0)


def check_tensor(
    kind: str, configured: Json, graph: dict[str, GraphTensor], *, batches: bool
) -> None:
    """Raise `ModelLoadError` unless one configured tensor is as the graph declares it."""
    name = configured["name"]
    if name not in graph:
        raise ModelLoadError(f"the graph has no {kind} {name!r}; its {kind}s are {sorted(graph)}")
    actual = graph[name]
    if configured["data_type"] != actual.data_type:
        raise ModelLoadError(
            f"{kind} {name!r} is {configured['data_type']} in config.pbtxt but "
            f"{actual.data_type} in the graph"
        )
    dims = configured.get("reshape", {}).get("shape", configured["dims"])
    expected = [int(d) for d in dims]  # Triton writes 64-bit numbers as JSON strings at times
    if batches:
        if not actual.shape or actual.shape[0] != -1:
            raise ModelLoadError(
                f"{kind} {name!r} has shape {list(actual.shape)} in the graph, which cannot be "
                "batched: export it with a free first dimension, or set max_batch_size: 0"
            )
        expected.insert(0, -1)
    agree = len(expected) == len(actual.shape) and all(
        have in (-1, want) for want, have in zip(expected, actual.shape, strict=True)
    )
    if not agree:
        raise ModelLoadError(
            f"{kind} {name!r} has shape {expected} in config.pbtxt"
            f"{' (batch dimension first)' if batches else ''} but {list(actual.shape)} in the graph"
        )
