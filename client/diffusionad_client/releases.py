"""Which release a server serves: fetched from it once a version, checked, and kept.

A release's metadata comes with the ensemble's configuration, so thresholds and
size never have to be configured on the client's side. They are kept per
version, because a server may answer from an old version while a new one loads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

from diffusionad_client import contract
from diffusionad_client.deadline import Deadline
from diffusionad_client.errors import (
    ContractError,
    DiffusionADError,
    InferenceError,
    MetadataError,
    ModelNotFoundError,
)
from diffusionad_client.metadata import ReleaseMetadata
from diffusionad_client.transport import ModelConfig, Transport

# An idle client may meet another server at the same address, whose version 1
# is another release. Asking again is two small calls.
CONFIRM_AFTER_S = 30.0

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
class Catalogue:
    """The categories of a server, by name."""

    served: list[ServedModel]
    refused: list[RefusedModel]

    @property
    def names(self) -> list[str]:
        """Name all of them."""
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
        """Give the newest release of a category; ask the server unless it told of it just now."""
        with self._lock:
            known = self._newest.get(model)
            if known and time.monotonic() - self._confirmed[model] <= CONFIRM_AFTER_S:
                return known
        return self.fetch_newest(model, deadline)

    def fetch_newest(self, model: str, deadline: Deadline) -> ServedModel:
        """Ask the server which release of a category, or of its encoded form, it serves now."""
        try:
            versions = self._transport.versions(model, timeout=deadline.left())
        except ModelNotFoundError as exc:
            raise self.explain_missing(model, exc, deadline) from exc
        if not versions:
            raise ContractError(f"{model} on {self._url}: the server names no version of it")
        with self._lock:  # the new one may have a lower number: of another server
            self._newest.pop(model, None)
        return self._fetch(model, max(versions, key=_number), deadline)

    def of_version(self, model: str, version: str, deadline: Deadline) -> ServedModel:
        """Give the release behind one version, which need not be the newest."""
        with self._lock:
            known = self._known.get((model, version))
        return known or self._fetch(model, version, deadline)

    def only_category(self, deadline: Deadline) -> str:
        """Name the one category of the server. Raises `ModelNotFoundError` if there are more."""
        with self._lock:
            if self._only is not None:
                return self._only
        names = self.categories(deadline).names
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
        """List the categories that are ready. Models that are none of ours are left out.

        A name alone does not tell: other models may be called like a category.
        """
        newest: dict[str, str] = {}
        for entry in self._transport.index(timeout=deadline.left()):
            if entry.ready and contract.is_category(entry.model):
                before = newest.get(entry.model, entry.version)
                newest[entry.model] = max(before, entry.version, key=_number)
        found = Catalogue([], [])
        for model, version in sorted(newest.items()):
            try:
                config = self._transport.config(model, version, timeout=deadline.left())
                if contract.METADATA_PARAMETER in config.parameters:
                    found.served.append(self._check(model, version, config))
            except _OF_ONE_CATEGORY as exc:  # it may have been unloaded since it was listed
                found.refused.append(RefusedModel(model, version, exc))
        return found

    def explain_missing(
        self, model: str, exc: ModelNotFoundError, deadline: Deadline
    ) -> ModelNotFoundError:
        """Make of a server's "no such model" an error that names those it does serve."""
        self.forget(model)
        try:
            names = self.categories(deadline).names
        except DiffusionADError:  # the list is a courtesy, and a server may restrict it
            return exc
        return ModelNotFoundError(
            f"{self._url} does not serve {model!r}; it serves: {', '.join(names) or 'no category'}"
        )

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
        _check_tensors(where, config, form(metadata.size), metadata.size)
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


def _number(version: str) -> int:
    return int(version) if version.isdigit() else -1
