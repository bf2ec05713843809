"""Tensors out of a request, and into a response, as Triton checks and packs them."""

from __future__ import annotations

import struct
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor

from diffusionad_client import contract
from diffusionad_client.testing.category import FakeCategory

_KINDS = {"u": "UINT8", "f": "FP32", "O": "BYTES"}


def read_batch(request: Any, category: FakeCategory, context: Any) -> NDArray[Any]:
    """Read the images of a request: (N, S, S, 3) uint8, or (N, 1) of files.

    Aborts the call, in Triton's words, if they are not what the category takes.
    """
    model = request.model_name
    encoded = model != category.name
    form = contract.encoded_signature if encoded else contract.ensemble_signature
    signature = form(category.size, category.contract)
    known = {spec.name for spec in signature.outputs}
    for output in request.outputs:
        if output.name not in known:
            _refuse(context, f"unexpected inference output '{output.name}' for model '{model}'")
    wanted = [-1, *signature.inputs[0].dims]
    sent = list(request.inputs[0].shape)
    if sent[1:] != wanted[1:]:
        expected = ",".join(map(str, wanted))
        got = ",".join(map(str, sent))
        _refuse(
            context,
            f"[request id: {request.id or '<id_unknown>'}] unexpected shape for input "
            f"'{signature.inputs[0].name}' for model '{model}'. Expected [{expected}], got [{got}]",
        )
    content = request.raw_input_contents[0]
    if encoded:
        return np.asarray(deserialize_bytes_tensor(content)).reshape(sent)
    return np.frombuffer(content, np.uint8).reshape(sent)


def write_outputs(response: Any, outputs: dict[str, NDArray[Any]]) -> Any:
    """Write named arrays into a response, and return it."""
    for name, array in outputs.items():
        kind = _KINDS[array.dtype.kind]
        response.outputs.add(name=name, datatype=kind, shape=array.shape)
        if kind == "BYTES":
            content = b"".join(struct.pack("<I", len(e)) + e for e in array.reshape(-1).tolist())
        else:
            content = array.tobytes()
        response.raw_output_contents.append(content)
    return response


def _refuse(context: Any, message: str) -> None:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
