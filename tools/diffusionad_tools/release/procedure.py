"""How a repository is changed: whom a command waits for, and what servers need in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffusionad_tools.release.keys import SigningKey, TrustedKeys
from diffusionad_tools.release.staging import WAIT_S

# Told of a category whose ensembles have switched, while its steps still serve the old release
# too. False: they go on doing so, because a server still needs it.
OnSwitch = Callable[[str], bool]


def no_servers(category: str) -> bool:
    """Let the steps forget the old release at once: the `OnSwitch` of a folder by itself."""
    return True


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """What every command that changes a repository is told besides the change itself."""

    wait: float = WAIT_S  # seconds for another writer, see `staging`
    settle: float = 0.0  # seconds between two stages, for servers that poll; see `publish`
    on_switch: OnSwitch = no_servers  # where servers that load on request are made to
    trusted: TrustedKeys | None = None  # serve only what one of them signed; None: anything
    key: SigningKey | None = None  # signs what is made of releases that are there: thresholds


DEFAULT = Procedure()
