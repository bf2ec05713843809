"""What can go wrong on a server, in Triton's own words (2.51, recorded from one).

Pure: these are the faults and what a call is told; `server` decides which call meets one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from diffusionad_client import contract
from diffusionad_client.sdk.admin_key import ADMIN_METADATA

Code = grpc.StatusCode

RESTRICTED = f"This protocol is restricted, expecting header '{ADMIN_METADATA}'"


class Fault(Enum):
    """A way to fail a call. Those of `SPOILED` change an answer, the others take its place."""

    QUEUE_FULL = "queue full"
    WAITED_TOO_LONG = "waited too long"  # in a queue
    RESTRICTED = "restricted"  # to those who have the admin key
    NOT_READY = "not ready"  # it starts
    STOPPING = "stopping"
    NO_VERSION = "no version now"  # of a model that is being replaced
    NOT_FOUND = "not found"
    PROCESS_DEAD = "process dead"  # the model's own
    FAILS = "fails"  # the model's graph
    BROKEN_LINE = "broken line"  # as gRPC says it; `FakeServer.stop` breaks it indeed
    HANGS = "hangs"  # no answer, and the socket stays open
    LACKS_OUTPUTS = "lacks outputs"  # its score
    WRONG_SHAPE = "wrong shape"  # of its score
    OTHER_RELEASE = "other release"  # than its configuration has
    BAD_THRESHOLDS = "bad thresholds"  # accept above reject, out of range


# An output, and what is sent in its place: nothing, or the tensor of one image.
SPOILED: dict[Fault | Refusal | None, tuple[str, NDArray[Any] | None]] = {
    Fault.LACKS_OUTPUTS: (contract.SCORE, None),
    Fault.WRONG_SHAPE: (contract.SCORE, np.zeros((1, 3, 3), np.float32)),
    Fault.OTHER_RELEASE: (contract.RELEASE, np.array([[b"f" * 64]], np.object_)),
    Fault.BAD_THRESHOLDS: (contract.THRESHOLDS, np.array([[7, 3, -1]], np.float32)),
}


@dataclass(frozen=True)
class Refusal:
    """A status and words of one's own, for what no `Fault` says."""

    status: grpc.StatusCode
    words: str


class RefusedError(Exception):
    """The server answers a call with a status and words."""

    def __init__(self, status: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


NOT_THERE = frozenset({Fault.NO_VERSION, Fault.NOT_FOUND})


def refusal(fault: Fault, method: str, model: str, request_id: str) -> Refusal | None:
    """Say what a call is told that meets a fault; None if the fault does not refuse it.

    Triton refuses no question whether a model is ready: it is not.
    """
    if method == "ModelReady" and fault in NOT_THERE:
        return None
    if fault is Fault.STOPPING:
        return Refusal(Code.UNAVAILABLE, _stopping(method, model, request_id))
    if fault not in _WORDS:
        return None
    status, words = _WORDS[fault]
    return Refusal(status, words.format(model=model, id=named(request_id)))


def named(request_id: str) -> str:
    """Name a request as Triton does in its errors."""
    return f"[request id: {request_id or '<id_unknown>'}]"


def _stopping(method: str, model: str, request_id: str) -> str:
    if method == "ModelInfer":
        return (
            f"in ensemble '{model}', {named(request_id)} Server is stopping, scheduler for model "
            "has stopped accepting new inference requests"
        )
    return "Server exiting" if method in ("ServerLive", "ServerReady") else "Server not ready"


_WORDS = {
    Fault.QUEUE_FULL: (
        Code.UNAVAILABLE,
        "in ensemble '{model}', {id} Exceeds maximum queue size",
    ),
    Fault.WAITED_TOO_LONG: (Code.UNAVAILABLE, "in ensemble '{model}', Request timeout expired"),
    Fault.RESTRICTED: (Code.UNAVAILABLE, RESTRICTED),
    Fault.NOT_READY: (Code.UNAVAILABLE, "Server not ready"),
    Fault.NO_VERSION: (
        Code.NOT_FOUND,
        "Request for unknown model: '{model}' has no available versions",
    ),
    Fault.NOT_FOUND: (Code.NOT_FOUND, "Request for unknown model: '{model}' is not found"),
    Fault.PROCESS_DEAD: (
        Code.INTERNAL,
        "in ensemble '{model}', Stub process '{model}__segmentation_0_0' is not healthy.",
    ),
    Fault.FAILS: (Code.INTERNAL, "in ensemble '{model}', onnx runtime error 6"),
    Fault.BROKEN_LINE: (Code.UNAVAILABLE, "Socket closed"),
}
