"""Tensors out of a request, and into a response, as Triton checks and packs them. Pure."""

from __future__ import annotations

import math
import struct
from typing import Any, NoReturn

import grpc
import numpy as np
from numpy.typing import NDArray

from diffusionad_client.sdk.transports.messages import packed
from diffusionad_client.testing.faults import RefusedError, named
from diffusionad_client.testing.models import MOST_AT_ONCE, Model

_KINDS = {"u": "UINT8", "f": "FP32", "O": "BYTES"}
_LENGTH = struct.Struct("<I")  # before each element of a BYTES tensor
_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be "
    "prepended to each input shape. If you want to specify the full shape including the batch dim "
    "in your input dims config, try setting max_batch_size to zero. See the model configuration "
    "docs for more info on max_batch_size."
)


def read_batch(request: Any, model: Model) -> NDArray[Any]:
    """Read the images of a request: (N, S, S, 3) uint8, or (N, 1) of files as bytes.

    Raises `RefusedError`, in Triton's words, if they are not what the model takes.
    """
    content = _content(request)
    _check_names(request, model)
    (tensor,) = request.inputs
    shape = list(tensor.shape)
    _check_shape(request, tensor, shape, model)
    about = named(request.id)
    batch = max(shape[0], 1)
    if tensor.datatype == "BYTES":
        files = _elements(content, model.name)
        if len(files) != batch:
            _refuse(
                f"{about} unexpected number of string elements {len(files)} for inference input "
                f"'{tensor.name}' for model '{model.name}', expecting {batch}"
            )
        return np.array([[file] for file in files], np.object_)
    expected = math.prod([batch, *shape[1:]])
    if len(content) != expected:
        _refuse(
            f"{about} input byte size mismatch for input '{tensor.name}' for model "
            f"'{model.name}'. Expected {expected}, got {len(content)}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def write_outputs(response: Any, outputs: dict[str, NDArray[Any]]) -> Any:
    """Write named arrays into a response, and return it."""
    for name, array in outputs.items():
        response.outputs.add(name=name, datatype=_KINDS[array.dtype.kind], shape=array.shape)
        response.raw_output_contents.append(packed(array))
    return response


def replace_output(response: Any, name: str, array: NDArray[Any] | None) -> None:
    """Send another array in the place of an output, if that was asked for; None: send none."""
    for number, output in enumerate(response.outputs):
        if output.name != name:
            continue
        if array is None:
            del response.outputs[number], response.raw_output_contents[number]
        else:
            output.shape[:] = array.shape
            response.raw_output_contents[number] = packed(array)
        return


def _content(request: Any) -> bytes:
    """Give the first input's content, raw or typed."""
    for number, tensor in enumerate(request.inputs):
        if number < len(request.raw_input_contents):
            continue
        if request.raw_input_contents or not (
            tensor.contents.uint_contents or tensor.contents.bytes_contents
        ):
            _refuse(
                f"unable to find data for input tensor '{tensor.name}' for model "
                f"'{request.model_name}' in request."
            )
    if request.raw_input_contents:
        raw: bytes = request.raw_input_contents[0]
        return raw
    if not request.inputs:
        return b""
    typed = request.inputs[0].contents
    return bytes(typed.uint_contents) or b"".join(
        _LENGTH.pack(len(element)) + element for element in typed.bytes_contents
    )


def _check_names(request: Any, model: Model) -> None:
    known = {spec.name for spec in model.signature.outputs}
    for output in request.outputs:
        if output.name not in known:
            _refuse(f"unexpected inference output '{output.name}' for model '{request.model_name}'")
    (spec,) = model.signature.inputs
    sent = [tensor.name for tensor in request.inputs]
    if len(sent) != 1:
        got = ",".join(f"'{name}'" for name in sent)
        missing = "]" if spec.name in sent else f"['{spec.name}']"
        _refuse(
            f"{named(request.id)} expected 1 inputs but got {len(sent)} inputs for model "
            f"'{model.name}'. Got input(s) [{got}], but missing required input(s) {missing}. "
            "Please provide all required input(s)."
        )
    if sent != [spec.name]:
        _refuse(f"unexpected inference input '{sent[0]}' for model '{model.name}'")


def _check_shape(request: Any, tensor: Any, shape: list[int], model: Model) -> None:
    (spec,) = model.signature.inputs
    about, name = named(request.id), model.name
    if not shape:
        _refuse(
            f"{about} input '{spec.name}' has no shape but model requires batch dimension for "
            f"'{name}'"
        )
    if shape[0] > MOST_AT_ONCE:
        _refuse(f"{about} inference request batch-size must be <= {MOST_AT_ONCE} for '{name}'")
    if tensor.datatype != spec.dtype:
        _refuse(
            f"{about} inference input '{spec.name}' data-type is '{tensor.datatype}', but model "
            f"'{name}' expects '{spec.dtype}'"
        )
    if any(dim < 0 for dim in shape):
        _refuse(
            f"{about} All input dimensions should be specified for input '{spec.name}' for model "
            f"'{name}', got {_written(shape)}"
        )
    wanted = [-1, *spec.dims]
    if shape[1:] != wanted[1:]:
        _refuse(
            f"{about} unexpected shape for input '{spec.name}' for model '{name}'. Expected "
            f"{_written(wanted)}, got {_written(shape)}. {_NOTE}"
        )


def _elements(content: bytes, model: str) -> list[bytes]:
    elements = []
    start = 0
    while start < len(content):
        (length,) = _LENGTH.unpack_from(content.ljust(start + _LENGTH.size, b"\0"), start)
        start += _LENGTH.size
        left = max(len(content) - start, 0)
        if left < length:
            _refuse(
                f"in ensemble '{model}', incomplete string data for inference input "
                f"'IMAGE_BYTES', expecting string of length {length} but only {left} bytes "
                "available"
            )
        elements.append(content[start : start + length])
        start += length
    return elements


def _written(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _refuse(words: str) -> NoReturn:
    raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, words)
