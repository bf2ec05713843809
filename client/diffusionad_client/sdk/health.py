"""How the servers of a client are: each by itself, and whether they serve the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from diffusionad_client.errors import (
    AccessDeniedError,
    DiffusionADError,
    ServerUnavailableError,
    TLSError,
)
from diffusionad_client.sdk.deadline import Deadline
from diffusionad_client.sdk.servers import Server
from diffusionad_client.sdk.steps import Steps, ask, together

_ALIKE = {TLSError, AccessDeniedError}  # what is the same for all of a fleet, and does not pass
_SHOWN = 12  # characters of a release's digest


@dataclass(frozen=True)
class ServerHealth:
    """One server of a client's, asked just now."""

    url: str
    ready: bool  # it answers, and all of its models are ready for requests
    server: str = ""
    version: str = ""
    releases: Mapping[str, str] = field(default_factory=dict)  # by category, if it tells
    error: DiffusionADError | None = None  # why it is not known


@dataclass(frozen=True)
class Health:
    """The servers of a client that answered."""

    ready: bool  # every server answers, and all of its models are ready for requests
    server: str
    version: str
    servers: tuple[ServerHealth, ...] = ()

    @property
    def differences(self) -> list[str]:
        """Say in which categories the servers do not serve the same release, and the remedy."""
        return _differences(self.servers)


def read_health(servers: list[Server], deadline: Deadline) -> Steps[Health]:
    """Ask every server. Raises an error that names them all if none answers."""
    several = len(servers) > 1
    found = yield from together([_ask(server, deadline, several) for server in servers])
    there = [health for health in found if health.error is None]
    if not there:
        errors = [health.error for health in found if health.error is not None]
        if len(errors) == 1:
            raise errors[0]
        kinds = {type(error) for error in errors}
        kind = kinds.pop() if kinds <= _ALIKE and len(kinds) == 1 else ServerUnavailableError
        raise kind(f"no server answers: {'; '.join(map(str, errors))}")
    ready = all(health.ready for health in found)
    return Health(ready, there[0].server, there[0].version, tuple(found))


def _ask(server: Server, deadline: Deadline, several: bool) -> Steps[ServerHealth]:
    link = server.link
    try:
        ready = yield from ask(lambda: link.ready(timeout=deadline.left()))
        about = yield from ask(lambda: link.about(timeout=deadline.left()))
    except DiffusionADError as exc:
        return ServerHealth(server.url, ready=False, error=exc)
    releases: dict[str, str] = {}
    if several:
        try:
            catalogue = yield from server.releases.categories(deadline)
            releases = {served.model: served.metadata.release for served in catalogue.served}
        except AccessDeniedError:
            pass  # a server need not tell everyone what it serves
        except DiffusionADError as exc:
            return ServerHealth(server.url, ready, about.server, about.version, error=exc)
    return ServerHealth(server.url, ready, about.server, about.version, releases)


def _differences(servers: tuple[ServerHealth, ...]) -> list[str]:
    telling = [server for server in servers if server.releases]
    sentences = []
    for category in sorted({name for server in telling for name in server.releases}):
        of_server = {server.url: server.releases.get(category) for server in telling}
        if len(set(of_server.values())) > 1:
            places = ", ".join(
                f"{url} serves {release[:_SHOWN] if release else 'none'}"
                for url, release in of_server.items()
            )
            sentences.append(
                f"{category}: {places}; bring all to one with `diffusionad release promote "
                f"{category} VERSION` and a --url for each"
            )
    return sentences
