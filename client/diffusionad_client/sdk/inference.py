"""One image's way to an answer: whom to ask, what for, and when to ask again.

What a server is known to serve may be out of date at any time: it was
restarted with another repository, or its release was changed or rolled back.
An answer of contract 2 says itself which release it is of; a refusal is
compared with what the server says now. In both cases the server is asked
again if it serves something else than was thought.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionad_client import contract, images
from diffusionad_client.artifacts.metadata import ReleaseMetadata
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
from diffusionad_client.sdk.releases import Releases
from diffusionad_client.sdk.served import ServedModel
from diffusionad_client.sdk.transports.base import Answer, Batch, Transport

FIRST_PAUSE_S = 0.1  # before a request is tried again; doubled each time
LONGEST_PAUSE_S = 2.0
# A server in the middle of a change is asked anew at once; one that contradicts itself is not
# asked for ever.
_CHANGES_IN_ONE_CALL = 3


@dataclass(frozen=True, eq=False)
class Request:
    """What one call asks for, however often it has to ask."""

    image: images.RGBImage | images.Deep | bytes  # bytes: a file for the server to decode
    model: str | None  # None: the server's only category
    outputs: Sequence[str]  # besides those of the judgement
    priority: Priority

    def form_of(self, category: str) -> str:
        """Name the form of a category that takes this image."""
        return contract.encoded_model(category) if isinstance(self.image, bytes) else category


@dataclass(frozen=True)
class Reply:
    """The tensors of one image, the release that gave them, and where the time went."""

    served: ServedModel
    tensors: dict[str, Any]  # without their batch dimension
    judged: bool  # the judgement came with them
    resize_s: float
    request_s: float


class _OutOfDateError(Exception):
    """The server serves something else than was thought; `reason` is what it led to."""

    def __init__(self, reason: DiffusionADError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Inference:
    """Asks one server. Threads may share it. Retries are made here and nowhere else."""

    def __init__(self, transport: Transport, releases: Releases, *, retry: bool) -> None:
        self._transport = transport
        self._releases = releases
        self._retry = retry

    def run(self, request: Request, deadline: Deadline) -> Reply:
        """Ask until there is an answer.

        Tried again, inside the deadline, is what passes by itself: a full
        queue, and a server or a model that is gone but has answered before.
        One that was never reached is an error at once: more likely its address
        or its name is wrong.
        """
        pauses = _pauses()
        failure: DiffusionADError | None = None
        changes = 0
        while True:
            try:
                return self._ask(request, deadline)
            except _OutOfDateError as exc:
                changes += 1
                if changes > _CHANGES_IN_ONE_CALL:
                    raise exc.reason from exc
                continue
            except DeadlineExceededError as exc:
                if failure is None:
                    raise
                raise failure from exc  # why it took so long, not that a last try had no time
            except DiffusionADError as exc:
                pause = next(pauses)
                if not (self._retry and self._may_pass(exc, request) and deadline.allows(pause)):
                    raise
                failure = exc
            time.sleep(pause)

    def _may_pass(self, exc: DiffusionADError, request: Request) -> bool:
        category = request.model if isinstance(exc, ModelNotFoundError) else None
        model = None if category is None else request.form_of(category)
        return exc.retryable and self._releases.reached(model)

    def _ask(self, request: Request, deadline: Deadline) -> Reply:
        """Ask once, as what is known of the server has it."""
        image = request.image
        model = request.form_of(request.model or self._releases.only_category(deadline))
        served = self._releases.newest(model, deadline)
        judgement = contract.judgement_outputs(served.metadata.contract)
        outputs = [*request.outputs, *judgement]
        started = time.perf_counter()
        try:
            batch = _batch_of_one(image, served.metadata)
        except ImageError as exc:  # it has more bits than images of that release
            if self._serves_something_else(served, deadline):
                raise _OutOfDateError(exc) from exc
            raise
        resize_s = time.perf_counter() - started
        started = time.perf_counter()
        try:
            answer = self._transport.infer(
                model, batch, outputs, priority=request.priority, timeout=deadline.left()
            )
            request_s = time.perf_counter() - started
            tensors = _of_one_image(answer, outputs, served)
        except ModelNotFoundError as exc:
            raise self._releases.explain_missing(model, exc, deadline) from exc
        except (ServerUnavailableError, DeadlineExceededError):
            # What comes back may number its releases differently; the last try of an outage
            # may just run out of time.
            self._releases.forget(model)
            raise
        except (ContractError, InferenceError) as exc:
            # It knows no such output, or takes images of another size: is it another release?
            if self._serves_something_else(served, deadline):
                raise _OutOfDateError(exc) from exc
            raise
        source = self._source(served, answer, deadline)
        self._releases.answered(model)
        return Reply(source, tensors, bool(judgement), resize_s, request_s)

    def _source(self, served: ServedModel, answer: Answer, deadline: Deadline) -> ServedModel:
        """Find the release that an answer is of; `served` was thought to give it."""
        told = release_that_came(answer.outputs)
        if answer.version == served.version and told in (None, served.metadata.release):
            return served
        source = self._releases.of_version(served.model, answer.version, deadline, release=told)
        if told is not None and source.metadata.release != told:
            self._releases.forget(served.model)
            raise _OutOfDateError(
                ContractError(
                    f"{source.model} version {source.version}: the server answers as release "
                    f"{told}, but its configuration is that of {source.metadata.release}"
                )
            )
        unasked = told is None and contract.judgement_outputs(source.metadata.contract)
        if unasked or _prepared_for(source) != _prepared_for(served):
            self._releases.forget(served.model)
            raise _OutOfDateError(
                ContractError(f"{source.model}: the server changes its releases all the time")
            )
        return source

    def _serves_something_else(self, served: ServedModel, deadline: Deadline) -> bool:
        self._releases.forget(served.model)
        try:
            now = self._releases.fetch_newest(served.model, deadline)
        except DiffusionADError as exc:
            if exc.retryable:
                raise
            return False
        return now != served


def _prepared_for(served: ServedModel) -> tuple[int, int]:
    """Give what an image is made to fit before it is sent."""
    return served.metadata.size, served.metadata.depth


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait before each next try; at random, so that clients spread out."""
    longest = FIRST_PAUSE_S
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(2 * longest, LONGEST_PAUSE_S)


def _batch_of_one(image: images.RGBImage | images.Deep | bytes, metadata: ReleaseMetadata) -> Batch:
    if isinstance(image, bytes):
        return np.array([[image]], dtype=np.object_)
    return images.resize(images.to_rgb(image, metadata.depth), metadata.size)[np.newaxis]


def _of_one_image(answer: Answer, outputs: Sequence[str], served: ServedModel) -> dict[str, Any]:
    """Check the outputs that were asked for and strip their batch dimension."""
    size, agreed = served.metadata.size, served.metadata.contract
    specs = {spec.name: spec for spec in contract.ensemble_signature(size, agreed).outputs}
    tensors: dict[str, Any] = {}
    for name in outputs:
        expected = (1, *specs[name].dims)
        array = answer.outputs.get(name)
        if array is None or array.shape != expected:
            raise ContractError(
                f"{served.model} version {answer.version}: expected {name} of shape {expected}, "
                f"the server sent {'nothing' if array is None else array.shape}"
            )
        tensors[name] = array[0]
    return tensors
