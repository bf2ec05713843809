"""Hold a whole repository against the digests that its releases were published with.

Files alone, in seconds, before a server loads them: what a failing disk, a copy that was
cut short or a hand has changed is never served. Who can write the configurations too can
write digests that fit; against that stand signatures, and a repository where servers cannot write.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusionad_client.errors import DiffusionADError
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release.check import category_problems, graph_problems, served_forms
from diffusionad_tools.release.keys import TrustedKeys
from diffusionad_tools.release.listing import listed
from diffusionad_tools.release.repository import category_folders, check_exists
from diffusionad_tools.release.signatures import signature_problems

_SHOWN = 10


def verify(repository: Path, trusted: TrustedKeys | None = None) -> int:
    """Check every category that is served there; give how many there are.

    With trusted keys, one of them must have signed each release. Raises
    `RepositoryError` that names each file that is not what was published.
    """
    check_exists(repository)
    categories = category_folders(repository)
    found = [
        problem for category in categories for problem in _problems(repository, category, trusted)
    ]
    if not found:
        return len(categories)
    raise RepositoryError(
        f"{repository}: is not as it was published, so it is not served; copy it anew from where "
        "it was released, or add the releases again\n" + listed(found, _SHOWN)
    )


def verified(repository: Path, trusted: TrustedKeys | None) -> str:
    """Check as `verify` does, and say what was found to be as it must be."""
    count = verify(repository, trusted)
    signed = "" if trusted is None else f", signed with {trusted}"
    return f"Verified: the graphs of {count} categories are those that were published{signed}."


def _problems(repository: Path, category: str, trusted: TrustedKeys | None) -> Iterator[str]:
    try:
        problems = category_problems(repository, category)
        yield from problems
        if problems:
            return
        # Both forms serve the same graphs, unless a command was killed or a hand was at work.
        forms = served_forms(repository, category).values()
        for release in {str((r.pins, r.metadata)): r for r in forms}.values():
            yield from graph_problems(repository, release)
            if trusted is not None:
                yield from signature_problems(repository, release, trusted)
    except DiffusionADError as exc:
        yield from str(exc).splitlines()
