"""Triton's gRPC messages, written and read: pure, the same for every way of sending them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2

from diffusionad_client.contract import IMAGE, IMAGE_BYTES, Priority, Signature, TensorSpec
from diffusionad_client.errors import ContractError
from diffusionad_client.sdk.transports.base import About, Answer, Batch, IndexEntry, ModelConfig
from diffusionad_client.sdk.transports.errors import without_trace

_LENGTH = struct.Struct("<I")  # before each element of a BYTES tensor
_DTYPES: dict[str, Any] = {
    "FP32": np.dtype("<f4"),
    "UINT8": np.dtype("u1"),
    "FP16": np.dtype("<f2"),
}


def infer_request(
    model: str,
    batch: Batch,
    outputs: Sequence[str],
    *,
    priority: Priority,
    timeout: float,
    request_id: str,
) -> Any:
    """Write the request for named outputs of a batch.

    The server is told of the timeout, in s: what still waits in its queue by
    then nobody waits for any more, and it is dropped there.
    """
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    name, kind = (IMAGE, "UINT8") if batch.dtype == np.uint8 else (IMAGE_BYTES, "BYTES")
    request.inputs.add(name=name, datatype=kind, shape=batch.shape)
    request.raw_input_contents.append(packed(batch))
    for output in outputs:
        request.outputs.add(name=output)
    request.parameters["priority"].uint64_param = int(priority)
    request.parameters["timeout"].int64_param = max(1, int(timeout * 1e6))  # us; 0 means none
    return request


def infer_answer(response: Any) -> Answer:
    """Read the outputs that came; they are read-only. Raises `ContractError`."""
    tensors = zip(response.outputs, response.raw_output_contents, strict=False)
    return Answer(
        version=response.model_version,
        outputs={tensor.name: _array(tensor, content) for tensor, content in tensors},
    )


def about(response: Any) -> About:
    """Read what a server says of itself."""
    return About(response.name, response.version)


def index_entries(response: Any) -> list[IndexEntry]:
    """Read the list of a server's repository."""
    return [
        IndexEntry(m.name, m.version, m.state == "READY", m.state, without_trace(m.reason))
        for m in response.models
    ]


def model_config(response: Any) -> ModelConfig:
    """Read what a client needs of a model's configuration."""
    config = response.config
    parameters: Mapping[str, str] = {
        key: value.string_value for key, value in config.parameters.items()
    }
    return ModelConfig(
        batched=config.max_batch_size > 0,
        signature=Signature(_specs(config.input), _specs(config.output)),
        parameters=parameters,
        steps={step.model_name: step.model_version for step in config.ensemble_scheduling.step},
    )


def unload_request(model: str) -> Any:
    """Write the request to unload a model and those that it alone is made of."""
    request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
    request.parameters["unload_dependents"].bool_param = True
    return request


def _array(tensor: Any, content: bytes) -> NDArray[Any]:
    shape = tuple(tensor.shape)
    try:
        if tensor.datatype == "BYTES":
            return np.array(_unpacked(content), np.object_).reshape(shape)
        array: NDArray[Any] = np.frombuffer(content, _DTYPES[tensor.datatype])
        return array.reshape(shape)
    except (KeyError, ValueError, struct.error) as exc:
        raise ContractError(
            f"the server sent {tensor.name} as {tensor.datatype} of shape {list(shape)}, but "
            f"{len(content)} bytes that are not that"
        ) from exc


def packed(array: NDArray[Any]) -> bytes:
    """Write a tensor's content; of bytes objects, each with its length before it."""
    if array.dtype == np.object_:
        return b"".join(_LENGTH.pack(len(e)) + e for e in array.reshape(-1).tolist())
    return array.tobytes()


def _unpacked(content: bytes) -> list[bytes]:
    elements = []
    start = 0
    while start < len(content):
        (length,) = _LENGTH.unpack_from(content, start)
        start += _LENGTH.size
        elements.append(content[start : start + length])
        start += length
    return elements


def _specs(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(t.name, _data_type(t.data_type), tuple(t.dims)) for t in tensors)


def _data_type(number: int) -> str:
    name: str = model_config_pb2.DataType.Name(number)
    return "BYTES" if name == "TYPE_STRING" else name.removeprefix("TYPE_")
