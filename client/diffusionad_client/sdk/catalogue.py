"""The categories of a server's repository: those it serves, those it cannot, and why.

A name alone does not tell: other models may be called like a category. One
that is ready says itself what it is, one that is not has the steps of one.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from diffusionad_client import contract
from diffusionad_client.errors import (
    ContractError,
    DiffusionADError,
    InferenceError,
    ModelNotFoundError,
)
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.served import ServedModel, read_served, version_number
from diffusionad_client.sdk.steps import Steps, ask, together
from diffusionad_client.sdk.transports.base import IndexEntry, Transport

_ON_ITS_WAY = ("LOADING", "UNLOADING")  # Triton's states; one version may make room for another
_UNLOADED = "unloaded"  # Triton's reason for what was unloaded as asked

# What the configuration of one category can raise and that of another need not.
_OF_ONE_CATEGORY = (ContractError, InferenceError, ModelNotFoundError)


@dataclass(frozen=True)
class RefusedModel:
    """A category that a server names, but that this client cannot use."""

    model: str
    version: str
    reason: DiffusionADError


@dataclass(frozen=True)
class IdleModel:
    """A category of the server's repository that answers no request now."""

    model: str
    state: str  # Triton's, such as LOADING or UNAVAILABLE; NOT_LOADED if it was never asked for
    reason: str  # why it is not available; may be empty


@dataclass(frozen=True)
class Catalogue:
    """The categories of a server, by name."""

    served: list[ServedModel]
    refused: list[RefusedModel]
    idle: list[IdleModel] = field(default_factory=list)
    encoded: list[str] = field(default_factory=list)  # of those served, whose encoded form is too

    @property
    def names(self) -> list[str]:
        """Name those that are ready."""
        return sorted([*(m.model for m in self.served), *(m.model for m in self.refused)])


def read_catalogue(link: Transport, url: str, deadline: Deadline) -> Steps[Catalogue]:
    """List the categories of a server's repository, without models that are none of ours."""
    entries = yield from ask(lambda: link.index(timeout=deadline.left()))
    return (yield from _read(entries, link, url, deadline))


def explain_missing(
    model: str, exc: ModelNotFoundError, link: Transport, url: str, deadline: Deadline
) -> Steps[ModelNotFoundError]:
    """Make of a server's "no such model" an error that names those it does serve.

    A model that its own list names as ready, or as on its way, is there in a moment.
    """
    try:
        entries = yield from ask(lambda: link.index(timeout=deadline.left()))
        catalogue = yield from _read(entries, link, url, deadline)
    except DiffusionADError:  # the list is a courtesy, and a server may restrict it
        return exc
    if any(entry.model == model and entry.ready for entry in entries):
        return ModelNotFoundError(
            f"{url} lists {model!r} as ready, but did not serve it a moment ago: it loads a "
            "release, or changes from one to another",
            passing=True,
        )
    for idle in catalogue.idle:
        if idle.model == model:
            return ModelNotFoundError(
                f"{url} has {model!r} in its repository, but does not serve it now: "
                + (idle.reason or idle.state),
                passing=exc.retryable or idle.state in _ON_ITS_WAY,
            )
    names = ", ".join(catalogue.names) or "no category"
    return ModelNotFoundError(
        f"{url} does not serve {model!r}; it serves: {names}", passing=exc.retryable
    )


def _read(
    entries: Sequence[IndexEntry], link: Transport, url: str, deadline: Deadline
) -> Steps[Catalogue]:
    newest: dict[str, str] = {}
    for entry in entries:
        if entry.ready and contract.is_category(entry.model):
            before = newest.get(entry.model, entry.version)
            newest[entry.model] = max(before, entry.version, key=version_number)
    catalogue = Catalogue([], [], _idle(entries, newest))
    # Each is one small call, and there may be hundreds of them on a distant server.
    looks = [_look_at(m, v, link, url, deadline) for m, v in sorted(newest.items())]
    for answer in (yield from together(looks)):
        if isinstance(answer, ServedModel):
            catalogue.served.append(answer)
        elif answer is not None:
            catalogue.refused.append(answer)
    ready = {entry.model for entry in entries if entry.ready}
    categories = [served.model for served in catalogue.served]
    catalogue.encoded.extend(c for c in categories if contract.encoded_model(c) in ready)
    return catalogue


def _look_at(
    model: str, version: str, link: Transport, url: str, deadline: Deadline
) -> Steps[ServedModel | RefusedModel | None]:
    """Ask what a model of that name and version is; None if it is none of ours."""
    try:
        config = yield from ask(lambda: link.config(model, version, timeout=deadline.left()))
        if contract.METADATA_PARAMETER not in config.parameters:
            return None
        return read_served(model, version, config, url)
    except _OF_ONE_CATEGORY as exc:  # it may have been unloaded since it was listed
        return RefusedModel(model, version, exc)


def _idle(entries: Sequence[IndexEntry], ready: Container[str]) -> list[IdleModel]:
    """Find the categories of which no version is ready, with the reason of their own or a step."""
    of_model: dict[str, IndexEntry] = {}
    for entry in entries:  # the newest version that the server has something to say of
        before = of_model.get(entry.model, entry)
        of_model[entry.model] = max(before, entry, key=lambda e: version_number(e.version))
    idle = []
    for model in sorted(of_model):
        steps = [of_model.get(contract.step_model(model, step)) for step in contract.NETWORK_STEPS]
        if model in ready or not contract.is_category(model) or None in steps:
            continue
        own = of_model[model]
        reasons = [own.reason, *(f"{s.model}: {s.reason}" for s in steps if s and _failed(s))]
        reason = "; ".join(r for r in reasons if r and r != _UNLOADED)
        idle.append(IdleModel(model, _state(own, reason), reason))
    return idle


def _failed(step: IndexEntry) -> bool:
    return not step.ready and step.reason not in ("", _UNLOADED)


def _state(entry: IndexEntry, reason: str) -> str:
    """Give Triton's state, but NOT_LOADED for what nobody asked for, or asked for no longer."""
    if entry.state in ("", "UNAVAILABLE") and not reason:
        return "NOT_LOADED"
    return entry.state or "UNAVAILABLE"
