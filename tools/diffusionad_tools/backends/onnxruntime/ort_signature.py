"""Hold a graph's inputs and outputs against its `config.pbtxt`, as strictly as the native backend.

Runs inside Triton's stub process: it imports nothing of ours but its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

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
    """The graph and its `config.pbtxt` do not belong together, or not into this server."""


@dataclass(frozen=True)
class GraphTensor:
    """An input or output as the ONNX graph declares it; a free dimension is -1."""

    name: str
    data_type: str  # Triton's, such as TYPE_FP32
    shape: tuple[int, ...]


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
