"""Serve another release that a repository holds already: a later one, or one from before.

What was served when is recorded with the release that is served, in the one
file that switches it (`model_config.remember`). Promoting remembers the
release that it leaves; rolling back forgets it. So rolling back twice goes
back by two, and never forth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release.check import require_servable, require_whole
from diffusionad_tools.release.publish import OnSwitch, no_servers, switch
from diffusionad_tools.release.repository import (
    Release,
    find_release,
    published_configs,
)
from diffusionad_tools.release.staging import WAIT_S, changing


@dataclass(frozen=True)
class Switched:
    """The release that is served now, and the one that was; the same if nothing changed."""

    release: Release
    before: Release

    @property
    def changed(self) -> bool:
        """Tell whether another release is served than before."""
        return self.release.version != self.before.version


def promote(
    repository: Path,
    category: str,
    version: int,
    *,
    wait: float = WAIT_S,
    settle: float = 0.0,
    on_switch: OnSwitch = no_servers,
) -> Switched:
    """Serve `version` of a category from now on.

    `wait` is that of `staging`, the others are those of `switch`. Raises a
    `DiffusionADError` and changes nothing if there is no such version, or if
    its files are not as they were published.
    """
    with changing(repository, wait=wait) as aside:
        served, target = _find(repository, category, version)
        history = served.served_before
        if target.version != served.version:
            history = [*history, served.version]
        return _serve(repository, aside, target, served, history, settle, on_switch)


def rollback(
    repository: Path,
    category: str,
    to: int | None = None,
    *,
    wait: float = WAIT_S,
    settle: float = 0.0,
    on_switch: OnSwitch = no_servers,
) -> Switched:
    """Serve the release that was served before, or version `to`.

    Raises as `promote` does, and if no release was served before.
    """
    with changing(repository, wait=wait) as aside:
        served, _ = _find(repository, category, None)
        history = list(served.served_before)
        if to is None and not history:
            raise ReleaseError(
                f"{category} in {repository} serves version {served.version}, and no version that "
                "was served before it is left; name one with --to "
                f"(`diffusionad release list --repository {repository}` shows them)"
            )
        target = find_release(repository, category, history[-1] if to is None else to)
        while target.version in history:  # back to before it was served last, and forget the rest
            if history.pop() == target.version:
                break
        return _serve(repository, aside, target, served, history, settle, on_switch)


def _find(repository: Path, category: str, version: int | None) -> tuple[Release, Release]:
    """Give the served release and another, of a category that is whole."""
    require_whole(repository, category)
    served = find_release(repository, category)
    return served, served if version is None else find_release(repository, category, version)


def _serve(
    repository: Path,
    aside: Path,
    target: Release,
    served: Release,
    history: list[int],
    settle: float,
    on_switch: OnSwitch,
) -> Switched:
    """Switch; for the served release itself, finish what a killed command left undone."""
    require_servable(repository, target)
    category = target.metadata.category
    configs = published_configs(repository, category, target.version)
    switch(repository, aside, configs, history, settle=settle, on_switch=on_switch)
    return Switched(find_release(repository, category), served)
