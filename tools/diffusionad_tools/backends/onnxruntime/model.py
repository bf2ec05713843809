"""Serve `backend: "onnxruntime"` models through Triton's Python backend.

An embedded Triton has no native ONNX Runtime backend; this folder stands in
for it under the same name, so that one `config.pbtxt` is served by either. It
refuses what the native backend refuses (names, data types and shapes that the
graph does not have), so that what loads here loads there.

Runs inside Triton's stub process: it imports nothing of ours but its neighbours.
"""

from __future__ import annotations

import json
import os
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils
from ort_device import DeviceRunner
from ort_priority import take_place
from ort_session import CPU, ORT_ERRORS, open_session
from ort_signature import check_signature, graph_tensors
from verdict_counts import VerdictCounts

Tensors = dict[str, np.ndarray[Any, np.dtype[Any]]]

DEFAULT_FILE = "model.onnx"


class Runner(Protocol):
    """Runs a graph once or more for requests that came together."""

    def run(self, parts: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
        """Compute the outputs `names` of each request; `parts` are their Triton tensors."""


class TritonPythonModel:
    """One instance of one version of a model. Triton calls the methods by these names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph and check it against the configuration. Raises `ModelLoadError`."""
        config = json.loads(args["model_config"])
        take_place(config)  # before there are threads
        path = os.path.join(
            args["model_repository"],
            args["model_version"],
            config.get("default_model_filename") or DEFAULT_FILE,
        )
        on_gpu = args["model_instance_kind"] == "GPU"
        device = int(args["model_instance_device_id"])
        session = open_session(path, config, on_gpu=on_gpu, device=device)
        inputs = graph_tensors(session.get_inputs())
        outputs = graph_tensors(session.get_outputs())
        check_signature(config, inputs, outputs)
        self._runner: Runner = HostRunner(session)
        if on_gpu and session.get_providers()[0] == CPU:
            pb_utils.Logger.log_warn(
                "this onnxruntime cannot use the GPU, the model runs on the CPU; install "
                "onnxruntime-gpu in place of onnxruntime, and the CUDA and cuDNN that it names"
            )
        elif on_gpu and DeviceRunner.takes([*inputs.values(), *outputs.values()]):
            self._runner = DeviceRunner(session, device, inputs, outputs)
        self._batches = config["max_batch_size"] > 0
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._counts = VerdictCounts.of(config, args["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer what the dynamic batcher put together with one run of the graph."""
        if self._batches:
            return self._answer_together(requests)
        return [self._answer_together([request])[0] for request in requests]

    def finalize(self) -> None:
        """Take what this instance has counted off the metrics; Triton is about to end it."""
        self._counts = None

    def _answer_together(self, requests: list[Any]) -> list[Any]:
        parts = [self._read(request) for request in requests]
        wanted = [list(request.requested_output_names()) for request in requests]
        try:
            answers = self._runner.run(parts, sorted({n for names in wanted for n in names}))
        except ORT_ERRORS as exc:
            if len(requests) == 1:
                return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc)))]
            # One request spoils the batch. Alone, only the guilty one fails.
            return [self._answer_together([request])[0] for request in requests]
        if self._counts is not None:
            self._counts.count(requests, answers)
        return [
            pb_utils.InferenceResponse([to_triton(name, answer[name]) for name in names])
            for names, answer in zip(wanted, answers, strict=True)
        ]

    def _read(self, request: Any) -> dict[str, Any]:
        return {name: pb_utils.get_input_tensor_by_name(request, name) for name in self._inputs}


class HostRunner:
    """Runs a session on arrays in the host's memory."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, parts: list[dict[str, Any]], names: list[str]) -> list[Tensors]:
        """Compute the outputs `names` of each request in one run."""
        arrays = [{name: t.as_numpy() for name, t in part.items()} for part in parts]
        outputs = self._session.run(names, concatenate(arrays))
        sizes = [len(next(iter(part.values()))) for part in arrays] if len(arrays) > 1 else [1]
        return split(dict(zip(names, outputs, strict=True)), sizes)


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


def to_triton(name: str, value: Any) -> Any:
    """Hand an output to Triton: an array by its bytes, what lies on a GPU by DLPack."""
    if isinstance(value, np.ndarray):
        return pb_utils.Tensor(name, value)
    return pb_utils.Tensor.from_dlpack(name, value)
