"""Decode image files on the server: `IMAGE_BYTES` in, `IMAGE` of the models' size out.

The decoding and the resize are those of training and of the client: the same
functions of `diffusionad_client` do them here, so this model loads only where
that package is installed. A file that cannot be used fails its own request,
with the reason, and no other.

Runs inside Triton's stub process, which loads `diffusionad_client.images` and
what that needs, numpy and Pillow, but neither gRPC nor a command line.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

try:
    from diffusionad_client import contract, images
    from diffusionad_client.errors import ImageError
except ImportError as exc:
    raise ImportError(
        f"{exc}; decoding images on the server needs diffusionad-client, with Pillow, in the "
        "server's Python: serve with an image that has both, or load the categories without "
        "their encoded forms"
    ) from exc


# The networks go first where both want the cores, or else a server that is sent too much decodes
# files for which they have no room. Theirs are 0 and 5.
NICE = 10


class ModelLoadError(Exception):
    """The `config.pbtxt` does not belong with the installed diffusionad-client."""


class TritonPythonModel:
    """One instance of the model. Triton calls the methods by these names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read size and limits from the configuration. Raises `ModelLoadError`."""
        _take_place()
        parameters = json.loads(args["model_config"]).get("parameters", {})
        resize = text_parameter(parameters, "resize")
        if resize != contract.RESIZE:
            raise ModelLoadError(
                f"images are to be resized by {resize!r}, the installed diffusionad-client knows "
                f"{contract.RESIZE!r}; install the one that belongs to this repository"
            )
        self._size = number_parameter(parameters, "size")
        # Of 16-bit images whose files do not say their depth; missing where that is the full one.
        self._depth = number_parameter(parameters, "depth") if "depth" in parameters else 16
        self._limits = images.Limits(
            max_bytes=number_parameter(parameters, "max_bytes"),
            max_pixels=number_parameter(parameters, "max_pixels"),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself; one with an unusable file gets the reason."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        files = pb_utils.get_input_tensor_by_name(request, contract.IMAGE_BYTES).as_numpy()
        decoded = []
        for index, file in enumerate(files.ravel()):
            try:
                pixels = images.load(bytes(file), limits=self._limits, depth=self._depth)
            except ImageError as exc:
                message = f"{contract.BAD_IMAGE} {index} of the request: {exc}"
                error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
                return pb_utils.InferenceResponse(error=error)
            decoded.append(images.resize(pixels, self._size))
        return pb_utils.InferenceResponse([pb_utils.Tensor(contract.IMAGE, np.stack(decoded))])


def text_parameter(parameters: dict[str, Any], name: str) -> str:
    """Read a parameter, which is text in Triton. Raises `ModelLoadError` if it is missing."""
    try:
        return str(parameters[name]["string_value"])
    except KeyError:
        raise ModelLoadError(f"config.pbtxt lacks the parameter {name!r}") from None


def number_parameter(parameters: dict[str, Any], name: str) -> int:
    """Read a parameter that holds a positive whole number. Raises `ModelLoadError`."""
    text = text_parameter(parameters, name)
    if not text.isdecimal() or int(text) < 1:
        raise ModelLoadError(
            f"parameter {name} is {text!r}; give a positive whole number, such as "
            f'{{ key: "{name}" value {{ string_value: "1000000" }} }}'
        )
    return int(text)


def _take_place() -> None:
    """Make this process nicer: of all its threads, as Linux counts niceness by thread."""
    above = os.getpriority(os.PRIO_PROCESS, 0) + NICE
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, int(thread), above)
