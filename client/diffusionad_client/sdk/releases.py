"""Which release a server serves: fetched from it once a version, checked, and kept.

A release's metadata comes with the ensemble's configuration, so thresholds and
size never have to be configured on the client's side. They are kept per
version, because a server may answer from an old version while a new one loads.
The methods that ask are steps (steps.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock

from diffusionad_client import contract
from diffusionad_client.errors import AccessDeniedError, ContractError, ModelNotFoundError
from diffusionad_client.sdk.catalogue import Catalogue, explain_missing, read_catalogue
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.served import ServedModel, read_served, version_number
from diffusionad_client.sdk.steps import Steps, ask
from diffusionad_client.sdk.transports.base import Transport

# An idle client may meet another server at the same address, whose version 1 is another release.
# An answer of contract 1 does not say so, and asking again is two small calls. No server stops and
# another starts within the shorter time; the longer one is for a gateway that changes between two.
CONFIRM_IDLE_AFTER_S = 2.0
CONFIRM_AFTER_S = 30.0
# A category's encoded form may be loaded at any time, and its decoder come back.
_DECODES_AGAIN_S = 30.0


@dataclass
class Told:
    """What the servers of one client have told of together."""

    models: set[str] = field(default_factory=set)  # of all that were ever heard of
    only: dict[str, str] = field(default_factory=dict)  # a server's address -> its only category


class Releases:
    """The releases of one server, as far as they were asked for. Threads may share it."""

    def __init__(self, link: Transport, url: str, told: Told) -> None:
        self._link = link
        self._url = url  # for messages
        self._lock = Lock()
        self._known: dict[tuple[str, str], ServedModel] = {}
        self._newest: dict[str, ServedModel] = {}
        self._confirmed: dict[str, float] = {}  # when the newest were heard of, monotonic
        self._answered: dict[str, float] = {}  # when they last answered, monotonic
        self._plain_until: dict[str, float] = {}  # monotonic: until then, no files are sent to it
        self.was_only = ""  # the only category that it was last known to serve
        self._told = told

    def newest(self, model: str, deadline: Deadline) -> Steps[ServedModel]:
        """Give the newest release of a category; ask the server unless it told of it just now.

        Or unless its answers say which release they are of: they are checked.
        """
        with self._lock:
            known = self._newest.get(model)
            if known and (
                contract.judgement_outputs(known.metadata.contract) or self._is_fresh(model)
            ):
                return known
        return (yield from self.fetch_newest(model, deadline))

    def answered(self, model: str) -> None:
        """Hear that a model answered just now, as what it is known to be."""
        with self._lock:
            self._answered[model] = time.monotonic()

    def may_decode(self, category: str) -> bool | None:
        """Tell whether the server may decode files for a category: False, or None: not known."""
        with self._lock:
            return False if time.monotonic() < self._plain_until.get(category, 0.0) else None

    def cannot_decode(self, category: str) -> None:
        """Hear that it could not just now."""
        with self._lock:
            self._plain_until[category] = time.monotonic() + _DECODES_AGAIN_S

    def _is_fresh(self, model: str) -> bool:
        now, confirmed = time.monotonic(), self._confirmed[model]
        idle = now - max(confirmed, self._answered.get(model, confirmed))
        return idle <= CONFIRM_IDLE_AFTER_S and now - confirmed <= CONFIRM_AFTER_S

    def fetch_newest(self, model: str, deadline: Deadline) -> Steps[ServedModel]:
        """Ask the server which release of a category, or of its encoded form, it serves now."""
        version = yield from self._newest_version(model, deadline)
        try:
            return (yield from self._fetch(model, version, deadline))
        except ModelNotFoundError:
            now = yield from self._newest_version(model, deadline)
            if now == version:
                raise
            # It took the other's place between the two calls.
            return (yield from self._fetch(model, now, deadline))

    def _newest_version(self, model: str, deadline: Deadline) -> Steps[str]:
        try:
            versions = yield from ask(lambda: self._link.versions(model, timeout=deadline.left()))
        except ModelNotFoundError as exc:
            raise (yield from self.explain_missing(model, exc, deadline)) from exc
        if not versions:
            raise ContractError(f"{model} on {self._url}: the server names no version of it")
        with self._lock:  # the new one may have a lower number: of another server
            self._newest.pop(model, None)
        return max(versions, key=version_number)

    def of_version(
        self, model: str, version: str, deadline: Deadline, *, release: str | None = None
    ) -> Steps[ServedModel]:
        """Give the release behind one version, which need not be the newest.

        The server is asked unless it told of that version before, as `release`
        if that is given.
        """
        with self._lock:
            known = self._known.get((model, version))
        if known is not None and release in (None, known.metadata.release):
            return known
        return (yield from self._fetch(model, version, deadline))

    def only_category(self, deadline: Deadline) -> Steps[str]:
        """Name the one category of the server. Raises `ModelNotFoundError` if there are more.

        Also if another server has another one: which of them answers would be chance.
        """
        known = self._told.only.get(self._url)
        if known is not None:
            return self._agreed(known)
        try:
            names = (yield from self.categories(deadline)).names
        except AccessDeniedError as exc:
            raise AccessDeniedError(
                f"{self._url} does not tell everyone what it serves; name a category (--model)"
            ) from exc
        if not names:
            raise ModelNotFoundError(f"{self._url} serves no category that is ready", passing=True)
        if len(names) > 1:
            raise ModelNotFoundError(
                f"{self._url} serves several categories, name one of them: {', '.join(names)}"
            )
        self._told.only[self._url] = self.was_only = names[0]
        return self._agreed(names[0])

    def _agreed(self, category: str) -> str:
        for url, other in [*self._told.only.items()]:
            if other != category:
                raise ModelNotFoundError(
                    f"{self._url} serves {category}, and {url} serves {other}; name a category "
                    "(--model)"
                )
        return category

    def categories(self, deadline: Deadline) -> Steps[Catalogue]:
        """List the categories of the server's repository."""
        return read_catalogue(self._link, self._url, deadline)

    def explain_missing(
        self, model: str, exc: ModelNotFoundError, deadline: Deadline
    ) -> Steps[ModelNotFoundError]:
        """Make of a server's "no such model" an error that says what it does serve."""
        self.forget(model)
        return explain_missing(model, exc, self._link, self._url, deadline)

    def forget(self, model: str) -> None:
        """Ask anew next time, because another server may stand there by then."""
        self._told.only.pop(self._url, None)
        with self._lock:
            self._newest.pop(model, None)
            self._known = {key: served for key, served in self._known.items() if key[0] != model}

    def _fetch(self, model: str, version: str, deadline: Deadline) -> Steps[ServedModel]:
        try:
            config = yield from ask(
                lambda: self._link.config(model, version, timeout=deadline.left())
            )
        except ModelNotFoundError as exc:
            raise (yield from self.explain_missing(model, exc, deadline)) from exc
        served = read_served(model, version, config, self._url)
        with self._lock:
            self._told.models.add(model)
            self._known[model, version] = served
            newest = self._newest.get(model)
            if newest is None or version_number(version) >= version_number(newest.version):
                self._newest[model] = served
                self._confirmed[model] = time.monotonic()
        return served
