"""Which release a server serves: fetched from it once a version, checked, and kept.

A release's metadata comes with the ensemble's configuration, so thresholds and
size never have to be configured on the client's side. They are kept per
version, because a server may answer from an old version while a new one loads.
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.errors import (
    AccessDeniedError,
    ContractError,
    DiffusionADError,
    InferenceError,
    MetadataError,
    ModelNotFoundError,
)
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.transports.base import IndexEntry, ModelConfig, Transport

# An idle client may meet another server at the same address, whose version 1
# is another release; an answer of contract 1 does not say so. Asking again is two small calls.
CONFIRM_AFTER_S = 30.0

_ASKED_AT_ONCE = 16
_UNLOADED = "unloaded"  # Triton's reason for what was unloaded as asked

# What the configuration of one category can raise and that of another need not.
_OF_ONE_CATEGORY = (ContractError, InferenceError, ModelNotFoundError)


@dataclass(frozen=True)
class ServedModel:
    """A category as a server serves it."""

    model: str  # the category, or its encoded form
    version: str
    metadata: ReleaseMetadata


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

    @property
    def names(self) -> list[str]:
        """Name those that are ready."""
        return sorted([*(m.model for m in self.served), *(m.model for m in self.refused)])


class Releases:
    """The releases of one server, as far as they were asked for. Threads may share it."""

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self._url = url  # for messages
        self._lock = Lock()
        self._known: dict[tuple[str, str], ServedModel] = {}
        self._newest: dict[str, ServedModel] = {}
        self._confirmed: dict[str, float] = {}  # when the newest were heard of, monotonic
        self._only: str | None = None
        self._reached = False

    @property
    def reached(self) -> bool:
        """Tell whether the server has ever told of a release."""
        return self._reached

    def newest(self, model: str, deadline: Deadline) -> ServedModel:
        """Give the newest release of a category; ask the server unless it told of it just now.

        Or unless its answers say which release they are of: they are checked.
        """
        with self._lock:
            known = self._newest.get(model)
            if known and (
                contract.judgement_outputs(known.metadata.contract)
                or time.monotonic() - self._confirmed[model] <= CONFIRM_AFTER_S
            ):
                return known
        return self.fetch_newest(model, deadline)

    def fetch_newest(self, model: str, deadline: Deadline) -> ServedModel:
        """Ask the server which release of a category, or of its encoded form, it serves now."""
        version = self._newest_version(model, deadline)
        try:
            return self._fetch(model, version, deadline)
        except ModelNotFoundError:
            now = self._newest_version(model, deadline)
            if now == version:
                raise
            return self._fetch(model, now, deadline)  # which took its place between the two calls

    def _newest_version(self, model: str, deadline: Deadline) -> str:
        try:
            versions = self._transport.versions(model, timeout=deadline.left())
        except ModelNotFoundError as exc:
            raise self.explain_missing(model, exc, deadline) from exc
        if not versions:
            raise ContractError(f"{model} on {self._url}: the server names no version of it")
        with self._lock:  # the new one may have a lower number: of another server
            self._newest.pop(model, None)
        return max(versions, key=_number)

    def of_version(
        self, model: str, version: str, deadline: Deadline, *, release: str | None = None
    ) -> ServedModel:
        """Give the release behind one version, which need not be the newest.

        The server is asked unless it told of that version before, as `release`
        if that is given.
        """
        with self._lock:
            known = self._known.get((model, version))
        if known is not None and release in (None, known.metadata.release):
            return known
        return self._fetch(model, version, deadline)

    def only_category(self, deadline: Deadline) -> str:
        """Name the one category of the server. Raises `ModelNotFoundError` if there are more."""
        with self._lock:
            if self._only is not None:
                return self._only
        try:
            names = self.categories(deadline).names
        except AccessDeniedError as exc:
            raise AccessDeniedError(
                f"{self._url} does not tell everyone what it serves; name a category (--model)"
            ) from exc
        if not names:
            raise ModelNotFoundError(f"{self._url} serves no category that is ready")
        if len(names) > 1:
            raise ModelNotFoundError(
                f"{self._url} serves several categories, name one of them: {', '.join(names)}"
            )
        with self._lock:
            self._only = names[0]
        return names[0]

    def categories(self, deadline: Deadline) -> Catalogue:
        """List the categories of the server's repository, without models that are none of ours.

        A name alone does not tell: other models may be called like a category.
        One that is ready says itself what it is, one that is not has steps.
        """
        entries = self._transport.index(timeout=deadline.left())
        newest: dict[str, str] = {}
        for entry in entries:
            if entry.ready and contract.is_category(entry.model):
                before = newest.get(entry.model, entry.version)
                newest[entry.model] = max(before, entry.version, key=_number)
        found = Catalogue([], [], _idle(entries, newest))
        # Each is one small call, and there may be hundreds of them on a distant server.
        with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="catalogue") as pool:
            ask = partial(self._look_at, deadline=deadline)
            for answer in pool.map(ask, sorted(newest.items())):
                if isinstance(answer, ServedModel):
                    found.served.append(answer)
                elif answer is not None:
                    found.refused.append(answer)
        return found

    def _look_at(
        self, ready: tuple[str, str], *, deadline: Deadline
    ) -> ServedModel | RefusedModel | None:
        """Ask what a model of that name and version is; None if it is none of ours."""
        model, version = ready
        try:
            config = self._transport.config(model, version, timeout=deadline.left())
            if contract.METADATA_PARAMETER not in config.parameters:
                return None
            return self._check(model, version, config)
        except _OF_ONE_CATEGORY as exc:  # it may have been unloaded since it was listed
            return RefusedModel(model, version, exc)

    def explain_missing(
        self, model: str, exc: ModelNotFoundError, deadline: Deadline
    ) -> ModelNotFoundError:
        """Make of a server's "no such model" an error that names those it does serve."""
        self.forget(model)
        try:
            found = self.categories(deadline)
        except DiffusionADError:  # the list is a courtesy, and a server may restrict it
            return exc
        for idle in found.idle:
            if idle.model == model:
                return ModelNotFoundError(
                    f"{self._url} has {model!r} in its repository, but does not serve it now: "
                    + (idle.reason or idle.state)
                )
        names = ", ".join(found.names) or "no category"
        return ModelNotFoundError(f"{self._url} does not serve {model!r}; it serves: {names}")

    def forget(self, model: str) -> None:
        """Ask anew next time, because another server may stand there by then."""
        with self._lock:
            self._only = None
            self._newest.pop(model, None)
            self._known = {key: served for key, served in self._known.items() if key[0] != model}

    def _fetch(self, model: str, version: str, deadline: Deadline) -> ServedModel:
        try:
            config = self._transport.config(model, version, timeout=deadline.left())
        except ModelNotFoundError as exc:
            raise self.explain_missing(model, exc, deadline) from exc
        self._reached = True
        served = self._check(model, version, config)
        with self._lock:
            self._known[model, version] = served
            newest = self._newest.get(model)
            if newest is None or _number(version) >= _number(newest.version):
                self._newest[model] = served
                self._confirmed[model] = time.monotonic()
        return served

    def _check(self, model: str, version: str, config: ModelConfig) -> ServedModel:
        where = f"{model} version {version} on {self._url}"
        document = config.parameters.get(contract.METADATA_PARAMETER)
        if document is None:
            raise ContractError(
                f"{where} is not a DiffusionAD category: "
                f"it has no parameter {contract.METADATA_PARAMETER!r}"
            )
        try:
            metadata = ReleaseMetadata.from_json(document)
        except MetadataError as exc:
            raise ContractError(f"{where}: {exc}") from exc
        encoded = model == contract.encoded_model(metadata.category)
        if not encoded and model != metadata.category:
            raise ContractError(f"{where}: its metadata is that of {metadata.category!r}")
        if metadata.resize != contract.RESIZE:
            raise ContractError(
                f"{where}: its images are resized by {metadata.resize!r}, this client knows "
                f"{contract.RESIZE!r}; install a diffusionad-client that matches the release"
            )
        form = contract.encoded_signature if encoded else contract.ensemble_signature
        _check_tensors(where, config, form(metadata.size, metadata.contract), metadata.size)
        return ServedModel(model, version, metadata)


def _check_tensors(
    where: str, config: ModelConfig, expected: contract.Signature, size: int
) -> None:
    for kind, found, wanted in (
        ("inputs", config.signature.inputs, expected.inputs),
        ("outputs", config.signature.outputs, expected.outputs),
    ):
        if set(found) != set(wanted):
            raise ContractError(
                f"{where}: the {kind} of a category of size {size} are "
                f"{_describe(wanted)}, not {_describe(found)}"
            )
    if not config.batched:
        raise ContractError(f"{where}: it takes no batches (max_batch_size is 0)")


def _describe(tensors: tuple[contract.TensorSpec, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype} {list(t.dims)}" for t in tensors) or "none"


def _idle(entries: Sequence[IndexEntry], ready: Container[str]) -> list[IdleModel]:
    """Find the categories of which no version is ready, with the reason of their own or a step."""
    of_model: dict[str, IndexEntry] = {}
    for entry in entries:  # the newest version that the server has something to say of
        before = of_model.get(entry.model, entry)
        of_model[entry.model] = max(before, entry, key=lambda e: _number(e.version))
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


def _number(version: str) -> int:
    return int(version) if version.isdigit() else -1
