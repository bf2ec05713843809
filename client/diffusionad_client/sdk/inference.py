"""One image's way to an answer on one server: what to ask it for, and of which release it is.

What a server is known to serve may be out of date at any time: it was
restarted with another repository, or its release was changed or rolled back.
An answer of contract 2 says itself which release it is of; a refusal is
compared with what the server says now. In both cases the server is asked
again if it serves something else than was thought.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from diffusionad_client import contract
from diffusionad_client.contract import Priority
from diffusionad_client.errors import (
    ContractError,
    DeadlineExceededError,
    DiffusionADError,
    ImageError,
    InferenceError,
    ModelNotFoundError,
    ServerUnavailableError,
)
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.judgement import release_that_came
from diffusionad_client.sdk.prepared import Prepared
from diffusionad_client.sdk.served import ServedModel
from diffusionad_client.sdk.servers import Server
from diffusionad_client.sdk.steps import Steps, ask, work
from diffusionad_client.sdk.tracing import Span
from diffusionad_client.sdk.transports.base import Answer

# A server in the middle of a change is asked anew at once; one that contradicts itself is not
# asked for ever.
_CHANGES_IN_ONE_TRY = 3

# What a server says of a file that it would have taken as pixels: it has no encoded form, its
# decoder has died, or takes no such files.
_NO_DECODER = (ModelNotFoundError, ServerUnavailableError, ImageError)


@dataclass(frozen=True)
class Request:
    """What one call asks for, however often it has to ask."""

    picture: Prepared
    model: str | None  # None: the server's only category
    outputs: Sequence[str]  # besides those of the judgement
    priority: Priority
    request_id: str
    span: Span


@dataclass(frozen=True)
class Reply:
    """The tensors of one image, the release that gave them, and where the time went."""

    served: ServedModel
    tensors: dict[str, Any]  # without their batch dimension
    judged: bool  # the judgement came with them
    server: str
    request_s: float


class _OutOfDateError(Exception):
    """The server serves something else than was thought; `reason` is what it led to."""

    def __init__(self, reason: DiffusionADError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def infer(request: Request, server: Server, deadline: Deadline) -> Steps[Reply]:
    """Ask one server, again at once where it serves something else than was thought."""
    for _ in range(_CHANGES_IN_ONE_TRY):
        try:
            return (yield from _ask(request, server, deadline))
        except _OutOfDateError as exc:
            reason = exc.reason
    raise reason


def _ask(request: Request, server: Server, deadline: Deadline) -> Steps[Reply]:
    """Ask once, in the form that saves bytes, or in the other where the server cannot decode."""
    picture, releases = request.picture, server.releases
    category = request.model or (yield from releases.only_category(deadline))
    if picture.decode == "auto":
        size = (yield from releases.newest(category, deadline)).metadata.size
        as_file = picture.goes_as_file(size, served_encoded=releases.may_decode(category))
    else:
        as_file = picture.decode == "server"
    cannot_decode = False
    if as_file:
        try:
            return (
                yield from _ask_form(contract.encoded_model(category), request, server, deadline)
            )
        except _NO_DECODER as exc:
            if picture.decode != "auto":
                raise
            picture.stay_here()
            cannot_decode = not isinstance(exc, ImageError)
    reply = yield from _ask_form(category, request, server, deadline)
    if cannot_decode:  # nor was it the server itself that was gone
        releases.cannot_decode(category)
    return reply


def _ask_form(model: str, request: Request, server: Server, deadline: Deadline) -> Steps[Reply]:
    """Ask a category, or its encoded form, once."""
    picture, releases = request.picture, server.releases
    as_file = model != model.partition("__")[0]
    served = yield from releases.newest(model, deadline)
    judgement = contract.judgement_outputs(served.metadata.contract)
    outputs = [*request.outputs, *judgement]
    size, depth = _prepared_for(served)
    try:
        if as_file:
            batch = picture.file_batch()
        else:
            batch = yield from work(partial(picture.batch, size, depth))
    except ImageError as exc:  # it has more bits than images of that release
        if (yield from _serves_something_else(server, served, deadline)):
            raise _OutOfDateError(exc) from exc
        raise
    started = time.perf_counter()
    try:
        with request.span.inside("diffusionad.try", server=server.url) as span:
            answer = yield from ask(
                lambda: server.link.infer(
                    model,
                    batch,
                    outputs,
                    priority=request.priority,
                    timeout=deadline.left(),
                    request_id=request.request_id,
                    headers=span.headers(),
                )
            )
        request_s = time.perf_counter() - started
        tensors = _of_one_image(answer, outputs, served)
    except ModelNotFoundError as exc:
        raise (yield from releases.explain_missing(model, exc, deadline)) from exc
    except (ServerUnavailableError, DeadlineExceededError):
        # What comes back may number its releases differently; the last try of an outage
        # may just run out of time.
        releases.forget(model)
        raise
    except (ContractError, InferenceError) as exc:
        # It knows no such output, or takes images of another size: is it another release?
        if (yield from _serves_something_else(server, served, deadline)):
            raise _OutOfDateError(exc) from exc
        raise
    source = yield from _source(server, served, answer, deadline)
    releases.answered(model)
    return Reply(source, tensors, bool(judgement), server.url, request_s)


def _source(
    server: Server, served: ServedModel, answer: Answer, deadline: Deadline
) -> Steps[ServedModel]:
    """Find the release that an answer is of; `served` was thought to give it."""
    releases = server.releases
    told = release_that_came(answer.outputs)
    if answer.version == served.version and told in (None, served.metadata.release):
        return served
    source = yield from releases.of_version(served.model, answer.version, deadline, release=told)
    if told is not None and source.metadata.release != told:
        releases.forget(served.model)
        raise _OutOfDateError(
            ContractError(
                f"{source.model} version {source.version}: the server answers as release "
                f"{told}, but its configuration is that of {source.metadata.release}"
            )
        )
    unasked = told is None and contract.judgement_outputs(source.metadata.contract)
    if unasked or _prepared_for(source) != _prepared_for(served):
        releases.forget(served.model)
        raise _OutOfDateError(
            ContractError(f"{source.model}: the server changes its releases all the time")
        )
    return source


def _serves_something_else(server: Server, served: ServedModel, deadline: Deadline) -> Steps[bool]:
    server.releases.forget(served.model)
    try:
        now = yield from server.releases.fetch_newest(served.model, deadline)
    except DiffusionADError as exc:
        if exc.retryable:
            raise
        return False
    return now != served


def _prepared_for(served: ServedModel) -> tuple[int, int]:
    """Give what an image is made to fit before it is sent."""
    return served.metadata.size, served.metadata.depth


@lru_cache(maxsize=64)
def _shapes(size: int, agreed: int) -> dict[str, tuple[int, ...]]:
    """Give the shape of each output for one image."""
    outputs = contract.ensemble_signature(size, agreed).outputs
    return {spec.name: (1, *spec.dims) for spec in outputs}


def _of_one_image(answer: Answer, outputs: Sequence[str], served: ServedModel) -> dict[str, Any]:
    """Check the outputs that were asked for and strip their batch dimension."""
    shapes = _shapes(served.metadata.size, served.metadata.contract)
    tensors: dict[str, Any] = {}
    for name in outputs:
        expected = shapes[name]
        array = answer.outputs.get(name)
        if array is None or array.shape != expected:
            raise ContractError(
                f"{served.model} version {answer.version}: expected {name} of shape {expected}, "
                f"the server sent {'nothing' if array is None else array.shape}"
            )
        tensors[name] = array[0]
    return tensors
