"""`release add` in one function: check, gate, publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffusionad_client.bundle import read_bundle
from diffusionad_client.local_server import STARTUP_S
from diffusionad_client.metadata import ReleaseMetadata
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release import gate
from diffusionad_tools.release.candidate import lay_out
from diffusionad_tools.release.graphs import check_graphs
from diffusionad_tools.release.publish import publish, staging
from diffusionad_tools.release.repository import served_release

_CANDIDATE = "candidate"


@dataclass(frozen=True)
class Addition:
    """What `add_release` did. `added` is False if that very release is served already."""

    metadata: ReleaseMetadata
    version: int
    added: bool


def add_release(
    bundle_folder: Path,
    repository: Path,
    say: Callable[[str], None],
    *,
    ready_timeout: float = STARTUP_S,
) -> Addition:
    """Add the release in a bundle to a repository, which is made if it does not exist.

    A release whose metadata alone has changed, its metrics for example, is a
    new version too, because clients are served the metadata. `ready_timeout`
    is how many seconds the bundle's models may take to load; `say` is told of
    progress, a line at a time. Raises a `DiffusionADError` and leaves the
    repository as it was if the bundle is not whole, does not belong there, or
    its server does not agree with its references.
    """
    bundle = read_bundle(bundle_folder)
    metadata = bundle.metadata
    references = bundle.references()
    try:
        with staging(repository) as folder:
            served = served_release(repository, metadata.category)
            if served is not None and served.metadata == metadata:
                return Addition(metadata, served.version, added=False)
            check_graphs(bundle)
            candidate = lay_out(bundle, repository, folder / _CANDIDATE)
            say(
                f"Serving {metadata.category} on an embedded Triton to compare it with "
                f"{len(references.images)} reference images ..."
            )
            differences = gate.compare(candidate, references, ready_timeout=ready_timeout)
            say(
                f"Agrees with training: largest difference of a score "
                f"{max(abs(d.score - d.expected_score) for d in differences):.2g} (tolerance "
                f"{gate.SCORE_TOLERANCE:g}), of a map {max(d.map for d in differences):.2g} "
                f"(tolerance {gate.MAP_TOLERANCE:g})."
            )
            publish(candidate, repository)
    except OSError as exc:
        raise ReleaseError(f"{exc.filename or repository}: {exc.strerror or exc}") from exc
    return Addition(metadata, candidate.version, added=True)
