"""Where Triton's errors become ours."""

from __future__ import annotations

import re

from diffusionad_client.contract import BAD_IMAGE
from diffusionad_client.errors import (
    AccessDeniedError,
    ContractError,
    DeadlineExceededError,
    DiffusionADError,
    ImageError,
    InferenceError,
    ModelLoadError,
    ModelNotFoundError,
    ServerBusyError,
    ServerUnavailableError,
)
from diffusionad_client.sdk.admin_key import ADMIN_METADATA
from diffusionad_client.sdk.deadline import MORE_TIME
from diffusionad_client.sdk.transports.tls_failures import tls_failure

# Loading fails with one of several statuses; that of a model that is not there looks like any.
_NOT_THERE = "failed to poll from model repository"
_NO_CONTROL = "explicit model load / unload is not allowed"
_PYTHON_TRACE = re.compile(r"\s*\bAt:\n(\s+/.*\n?)+;?")  # a stub's own stack, of no use to a user

# Triton's words for a full queue, and for a request that waited too long in one.
_QUEUE_FULL = "queue"
_WAITED_TOO_LONG = "request timeout expired"

_UNKNOWN = "unknown model"

# Its words for a model of which no version is ready now, but which it holds: it says so of all
# models while it stops, and of one while that is loaded or unloaded.
_NOT_NOW = ("has no available versions", "is not at ready state")
# ... and for calls that reach it while it stops or starts.
_NOT_READY = ("server is stopping", "server exiting", "server not ready")

# gRPC's words for an answer in another protocol, HTTP/1 for the most part.
_NOT_GRPC = "Failed parsing HTTP/2"

# What Triton's Python backend says of a model's process that was killed or crashed, in any of
# several statuses. Whoever runs the server brings it back; another server may do meanwhile.
_PROCESS_GONE = re.compile(
    r"stub process\b.*\b(unhealthy|not healthy|exited|died|killed|terminated)", re.S
)


def translate(
    code: str, message: str, about: str, timeout: float, *, loads: bool = False
) -> DiffusionADError:
    """Turn the name of a gRPC status and a message into the error of ours that they mean.

    Triton answers UNAVAILABLE for a full queue and for restricted calls, gRPC
    itself for a server that is not there: only the message tells them apart.
    Calls that load or unload a model have some words of their own.
    """
    refused = _of_load(code, message, about) if loads else None
    if refused is not None:
        return refused
    text = message.lower()
    if _PROCESS_GONE.search(text):
        return ServerUnavailableError(
            f"{about}: a process that the server runs the model in has died ({message}); "
            "`diffusionad serve` brings it back, another server may have to be restarted"
        )
    # A message may name the model, which may be called "queue".
    if code == "UNAVAILABLE" and _UNKNOWN not in text:
        if _WAITED_TOO_LONG in text:
            return ServerBusyError(f"{about}: waited too long in the server's queue ({message})")
        if _QUEUE_FULL in text:
            return ServerBusyError(f"{about}: the server's queue is full ({message})")
        if "restricted" in text:
            return AccessDeniedError(_restricted(message, about))
        if any(words in text for words in _NOT_READY):
            return ServerUnavailableError(f"{about}: the server is stopping, or not yet ready")
        if (failure := tls_failure(message, about)) is not None:
            return failure
        return ServerUnavailableError(f"{about}: no server answers ({_hint(message)})")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        return AccessDeniedError(f"{about}: access refused ({message})")
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceededError(f"{about}: no answer in {timeout:.3g} s; {MORE_TIME}")
    if code == "NOT_FOUND" or _UNKNOWN in text:
        passing = any(words in text for words in _NOT_NOW)
        return ModelNotFoundError(
            f"{about}: the server does not serve it ({message})", passing=passing
        )
    if code == "UNIMPLEMENTED":
        return ContractError(f"{about}: what answers there is not a Triton server ({message})")
    if code == "INVALID_ARGUMENT" and BAD_IMAGE in message:
        return ImageError(f"{about}: {message[message.index(BAD_IMAGE) :]}")
    return InferenceError(f"{about}: the server failed the request: {message}")


def _restricted(message: str, about: str) -> str:
    if ADMIN_METADATA in message:
        return (
            f"{about}: the server allows this call only with its admin key; give the key's file "
            "with --admin-key-file"
        )
    return f"{about}: the server restricts this call ({message})"


def _hint(message: str) -> str:
    if "http1" in message.lower().replace("/", "").replace(".", "") or _NOT_GRPC in message:
        return (
            "what listens there does not speak gRPC, as an HTTP port does not; give the port of "
            "Triton's gRPC service, usually 8001"
        )
    return message


def _of_load(code: str, message: str, about: str) -> DiffusionADError | None:
    """Turn what Triton says of a model that it cannot load into an error of ours."""
    message = without_trace(message).strip()
    if _NOT_THERE in message:
        return ModelNotFoundError(f"{about}: there is no such model in the server's repository")
    if _NO_CONTROL in message:
        return AccessDeniedError(
            f"{about}: the server loads and unloads nothing while it runs; start it with "
            "--model-control-mode explicit"
        )
    if code in ("INVALID_ARGUMENT", "INTERNAL"):
        return ModelLoadError(f"{about}: the server cannot load it: {message}")
    return None


def without_trace(message: str) -> str:
    """Leave out a stub's own stack."""
    return _PYTHON_TRACE.sub("", message)
