"""What can go wrong on a server, in Triton's own words (2.51, recorded)."""

from __future__ import annotations

from enum import Enum

import grpc


class Fault(Enum):
    """A way to fail a call. Those of `ANSWERS` spoil an answer, the others take its place."""

    QUEUE_FULL = "queue full"
    WAITED_TOO_LONG = "waited too long"
    RESTRICTED = "restricted"
    NOT_READY = "not ready"
    STOPPING = "stopping"
    NO_VERSION = "no version now"  # of a model that is being replaced
    NOT_FOUND = "not found"
    PROCESS_DEAD = "process dead"  # the model's own
    FAILS = "fails"  # the model's graph
    BROKEN_LINE = "broken line"
    HANGS = "hangs"  # no answer, and the socket stays open
    LACKS_OUTPUTS = "lacks outputs"
    WRONG_SHAPE = "wrong shape"
    OTHER_RELEASE = "other release"  # than the configuration has
    BAD_THRESHOLDS = "bad thresholds"


ANSWERS = frozenset(
    {Fault.LACKS_OUTPUTS, Fault.WRONG_SHAPE, Fault.OTHER_RELEASE, Fault.BAD_THRESHOLDS}
)

# The status and the words of each; {model} is the model that was asked for.
WORDS = {
    Fault.QUEUE_FULL: (
        grpc.StatusCode.UNAVAILABLE,
        "in ensemble '{model}', [request id: <id_unknown>] Exceeds maximum queue size",
    ),
    Fault.WAITED_TOO_LONG: (
        grpc.StatusCode.UNAVAILABLE,
        "in ensemble '{model}', Request timeout expired",
    ),
    Fault.RESTRICTED: (
        grpc.StatusCode.UNAVAILABLE,
        "This protocol is restricted, expecting header 'triton-grpc-protocol-some-key'",
    ),
    Fault.NOT_READY: (grpc.StatusCode.UNAVAILABLE, "Server not ready"),
    Fault.STOPPING: (grpc.StatusCode.UNAVAILABLE, "Server is stopping, scheduler for model has"),
    Fault.NO_VERSION: (
        grpc.StatusCode.UNAVAILABLE,
        "Request for unknown model: '{model}' has no available versions",
    ),
    Fault.NOT_FOUND: (
        grpc.StatusCode.NOT_FOUND,
        "Request for unknown model: '{model}' is not found",
    ),
    Fault.PROCESS_DEAD: (
        grpc.StatusCode.INTERNAL,
        "in ensemble '{model}', Stub process '{model}__segmentation_0_0' is not healthy.",
    ),
    Fault.FAILS: (grpc.StatusCode.INTERNAL, "in ensemble '{model}', onnx runtime error 6"),
    Fault.BROKEN_LINE: (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
}
