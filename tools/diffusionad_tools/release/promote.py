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
from diffusionad_tools.release.check import read_whole, require_servable
from diffusionad_tools.release.procedure import DEFAULT, Procedure
from diffusionad_tools.release.publish import switch
from diffusionad_tools.release.repository import Category, Release, find_release
from diffusionad_tools.release.signatures import require_signed
from diffusionad_tools.release.staging import changing


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
    repository: Path, category: str, version: int, procedure: Procedure = DEFAULT
) -> Switched:
    """Serve `version` of a category from now on.

    Raises a `DiffusionADError` and changes nothing if there is no such version,
    or if its files are not as they were published.
    """
    with changing(repository, wait=procedure.wait) as aside:
        found = read_whole(repository, category)
        served, target = found.release(), found.release(version)
        history = served.served_before
        if target.version != served.version:
            history = [*history, served.version]
        return _serve(found, aside, target, history, procedure)


def rollback(
    repository: Path, category: str, to: int | None = None, procedure: Procedure = DEFAULT
) -> Switched:
    """Serve the release that was served before, or version `to`.

    Raises as `promote` does, and if no release was served before.
    """
    with changing(repository, wait=procedure.wait) as aside:
        found = read_whole(repository, category)
        served = found.release()
        history = list(served.served_before)
        if to is None and not history:
            raise ReleaseError(
                f"{category} in {repository} serves version {served.version}, and no version that "
                "was served before it is left; name one with --to "
                f"(`diffusionad release list --repository {repository}` shows them)"
            )
        target = found.release(history[-1] if to is None else to)
        while target.version in history:  # back to before it was served last, and forget the rest
            if history.pop() == target.version:
                break
        return _serve(found, aside, target, history, procedure)


def _serve(
    category: Category, aside: Path, target: Release, history: list[int], procedure: Procedure
) -> Switched:
    """Switch; for the served release itself, finish what a killed command left undone."""
    require_servable(category, target)
    require_signed(category.repository, target, procedure.trusted)
    switch(category, aside, category.published_configs(target), history, procedure)
    return Switched(find_release(category.repository, category.name), category.release())
