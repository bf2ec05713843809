"""Check that ONNX graphs load and have the contract's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from diffusionad_client import contract
from diffusionad_client.artifacts.bundle import Bundle
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import NETWORK_STEPS, Step, TensorSpec
from diffusionad_tools.errors import ReleaseError

_TYPES = {"UINT8": "tensor(uint8)", "FP32": "tensor(float)", "BYTES": "tensor(string)"}
_LOAD_ERRORS = (  # onnxruntime's statuses have no base class of their own
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)


def check_graphs(bundle: Bundle) -> None:
    """Raise `ReleaseError` unless every graph loads and has exactly its step's tensors."""
    for step in NETWORK_STEPS:
        check_graph(bundle.graph(step), step, bundle.metadata)


def check_graph(path: Path, step: Step, metadata: ReleaseMetadata) -> None:
    """Raise `ReleaseError` unless the graph loads and has exactly the tensors of its step."""
    session = _load(path)
    signature = contract.step_signature(step, metadata.size, metadata.contract)
    _compare(path, "inputs", session.get_inputs(), signature.inputs)
    _compare(path, "outputs", session.get_outputs(), signature.outputs)


def _load(path: Path) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as exc:
        raise ReleaseError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} does not load it: {exc}"
        ) from exc


def _compare(
    path: Path, kind: str, found: Sequence[onnxruntime.NodeArg], wanted: Sequence[TensorSpec]
) -> None:
    has = {arg.name: f"{arg.type} {['batch', *arg.shape[1:]]}" for arg in found if _batched(arg)}
    needs = {spec.name: f"{_TYPES[spec.dtype]} {['batch', *spec.dims]}" for spec in wanted}
    has |= {a.name: f"{a.type} {a.shape} (no batch)" for a in found if not _batched(a)}
    if has != needs:
        raise ReleaseError(f"{path}: its {kind} are {has}, the contract asks for {needs}")


def _batched(argument: onnxruntime.NodeArg) -> bool:
    return bool(argument.shape) and not isinstance(argument.shape[0], int)
