"""Bring running servers to the release that a repository serves, and see that they all are.

Triton loads an ensemble together with the steps that it names, when their files
have changed. It brings a step's new versions up first, then the ensemble's, and
takes the old ones away at once where their configuration names them no longer,
while requests still reach the old ensemble (measured: see `docs/fleet.md`).
So servers load between two changes of the folder: when the ensembles have
switched and the steps serve the old and the new release; and again when the
steps serve the new one alone, which takes no time and frees the old one's memory.
Steps that the new release has not, because it is of another contract, Triton
keeps loaded; they are unloaded then.

The old versions go away after the command has ended, and the next change must not
meet that: `settling` waits for it before a category is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from diffusionad_client.contract import step_models
from diffusionad_client.errors import DiffusionADError
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.connection import Connection
from diffusionad_client.sdk.credentials import credentials_of
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.settling import load_when_settled
from diffusionad_client.sdk.threads import ThreadDriver
from diffusionad_client.sdk.transports.grpc import GrpcTransport
from diffusionad_tools.release.repository import Category, Release, read_category

_ASK_S = 10.0  # for what takes no work
_AT_ONCE = 32  # servers


class Fleet:
    """The servers of a repository, each with explicit model control, and the key to all of them.

    None: there is no server to tell. The connection's timeout is for one
    server to load a category. Raises `CredentialsError`.
    """

    def __init__(self, connection: Connection | None) -> None:
        self.urls: Sequence[str] = () if connection is None else connection.servers
        self.timeout = 0.0 if connection is None else connection.timeout
        self._credentials = None if connection is None else credentials_of(connection)

    def dial(self, url: str) -> GrpcTransport:
        """Make the way to one of the servers."""
        return GrpcTransport(url, credentials=self._credentials)


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """What one server serves of a category after it was asked to load it."""

    url: str
    version: str | None = None  # None: it did not say
    release: str | None = None
    steps: dict[str, int] = field(default_factory=dict)  # model -> the version that is asked for
    problem: str | None = None  # None: it serves what it should

    @property
    def agrees(self) -> bool:
        """Tell whether the server serves the release that it should."""
        return self.problem is None


@dataclass
class RollOut:
    """The roll-out of one change of a repository. Calling it is what `switch` does in between."""

    repository: Path
    fleet: Fleet
    servers: list[ServerState] = field(default_factory=list)

    def __call__(self, category: str) -> bool:
        """Load the release that the folder serves now; tell whether every server serves it."""
        if not self.fleet.urls:
            return True
        self.servers = roll_out(read_category(self.repository, category), self.fleet)
        return self.complete

    def finish(self, category: str) -> None:
        """Load again what the steps' narrowed configurations leave, unless a server lags behind."""
        if not self.fleet.urls or (self.servers and not self.complete):
            return
        self.servers = roll_out(read_category(self.repository, category), self.fleet, last=True)

    @property
    def complete(self) -> bool:
        """Tell whether every server serves the release."""
        return all(server.agrees for server in self.servers)


def roll_out(category: Category, fleet: Fleet, *, last: bool = False) -> list[ServerState]:
    """Make every server load what a category serves, all at once, and ask each what it serves then.

    A server that cannot be reached, refuses or fails is among the answers with its problem;
    the others are done all the same. The `last` time, steps that no other
    release needs any more are unloaded.
    """
    load = partial(_load_and_examine, category.release(), category.ensembles, fleet, last)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="rollout") as pool:
        return list(pool.map(load, fleet.urls))


def _load_and_examine(
    release: Release, forms: Sequence[str], fleet: Fleet, last: bool, url: str
) -> ServerState:
    try:
        with closing(fleet.dial(url)) as server:
            there = _forms_there(server, forms)
            end = time.monotonic() + fleet.timeout
            for form in there:
                left = max(end - time.monotonic(), _ASK_S)
                if form == there[0]:
                    ThreadDriver().run(load_when_settled(server, form, Deadline(left)))
                else:  # it finds the steps as the load before it has left them, and loads none
                    server.load(form, timeout=left)
            state = _examine(server, release, url, there)
            if last and state.agrees:
                for model in _left_over(server, release):
                    server.unload(model, timeout=_ASK_S)
            return state
    except DiffusionADError as exc:
        return ServerState(url=url, problem=str(exc))


def _forms_there(server: GrpcTransport, forms: Sequence[str]) -> list[str]:
    """Name the category's plain form, and those of its other ensembles that are loaded there.

    A server may do without the others: the plain container has no Pillow.
    """
    plain, *others = forms
    ready = {entry.model for entry in server.index(timeout=_ASK_S) if entry.ready}
    return [plain, *(form for form in others if form in ready)]


def _left_over(server: GrpcTransport, release: Release) -> set[str]:
    """Name the steps of other contracts that a server still has loaded."""
    ready = {entry.model for entry in server.index(timeout=_ASK_S) if entry.ready}
    return ready & set(step_models(release.metadata.category)) - set(release.pins)


def _examine(
    server: GrpcTransport, release: Release, url: str, forms: Sequence[str]
) -> ServerState:
    """Hold what a server says of a category against the release."""
    category, version = release.metadata.category, str(release.version)
    client = Client(url, category, transport=server, timeout=_ASK_S)
    found = client.served()
    pins = server.config(category, found.version, timeout=_ASK_S).steps
    state = ServerState(
        url=url, version=found.version, release=found.metadata.release, steps=dict(pins)
    )
    if (found.version, found.metadata.release) != (version, release.metadata.release):
        return replace(
            state,
            problem=f"serves version {found.version}, release {found.metadata.release}, after "
            "loading; is its repository this one, or a copy that is not up to date?",
        )
    problems = []
    expected = release.pins
    needed = dict(expected)
    for form in forms:
        if version not in server.versions(form, timeout=_ASK_S):
            problems.append(f"{form} is not served in version {version}")
            continue
        asked = server.config(form, version, timeout=_ASK_S).steps
        needed = {**asked, **needed}  # the encoded form has a step more
        problems += [
            f"{form} asks for {model} version {asked.get(model)}, not {pinned}"
            for model, pinned in expected.items()
            if asked.get(model) != pinned
        ]
    problems += [
        f"{model} is not served in version {pinned}"
        for model, pinned in needed.items()
        if str(pinned) not in server.versions(model, timeout=_ASK_S)
    ]
    # A model is called ready, and its load done, though a process of it has died.
    proofs = [proof for form in forms for proof in client.probe(form)]
    problems += [
        f"{proof.model} does not answer: {proof.error}" for proof in proofs if proof.is_broken
    ]
    return replace(state, problem="; ".join(problems) or None)
