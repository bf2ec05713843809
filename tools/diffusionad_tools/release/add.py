"""`release add` in one function: check, gate, publish, prune."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffusionad_client import contract
from diffusionad_client.artifacts.agreement import describe
from diffusionad_client.artifacts.bundle import read_bundle
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.local_server import STARTUP_S
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release import gate, signatures
from diffusionad_tools.release.candidate import lay_out, published, record
from diffusionad_tools.release.check import read_whole
from diffusionad_tools.release.graphs import check_graphs
from diffusionad_tools.release.procedure import DEFAULT, Procedure
from diffusionad_tools.release.prune import KEEP, prune
from diffusionad_tools.release.publish import publish, switch
from diffusionad_tools.release.repository import Release, read_category
from diffusionad_tools.release.signatures import ReleaseSignature
from diffusionad_tools.release.staging import staging

_CANDIDATE, _PRUNED = "candidate", "pruned"


@dataclass(frozen=True)
class Addition:
    """What `add_release` did. `added` is False if that very release is served already."""

    metadata: ReleaseMetadata
    version: int
    added: bool
    pruned: list[int] = field(default_factory=list)  # versions that made room


def add_release(
    bundle_folder: Path,
    repository: Path,
    say: Callable[[str], None],
    *,
    name: str | None = None,
    encoded: bool = True,
    cores: int = 1,
    keep: int = KEEP,
    ready_timeout: float = STARTUP_S,
    procedure: Procedure = DEFAULT,
) -> Addition:
    """Add the release in a bundle to a repository, which is made if it does not exist.

    A release whose metadata alone has changed, its metrics for example, is a
    new version too, because clients are served the metadata. `name` installs it
    under another category than the bundle's, `encoded` adds the form that takes
    image files, `cores` is how many a CPU host has that will serve it (see
    `host_config`), `keep` is how many releases of it stay (see `prune`).
    `ready_timeout` is how many seconds the bundle's models may take to load;
    `say` is told of progress, a line at a time. Raises a
    `DiffusionADError` and leaves the repository as it was if the bundle is not
    whole, does not belong there, or its server does not agree with its
    references.
    """
    bundle = read_bundle(bundle_folder)
    category_name = name or bundle.metadata.category
    signature = signatures.check_bundle(bundle, category_name, procedure.trusted)
    if name is not None:
        bundle = replace(bundle, metadata=bundle.metadata.changed(category=name))
    bundle = replace(bundle, metadata=published(bundle.metadata))
    metadata = bundle.metadata
    references, agreement_set = bundle.references(), bundle.agreement_set()
    with staging(repository, wait=procedure.wait) as folder:
        category = read_whole(repository, metadata.category)
        served = category.served
        has_encoded = len(category.ensembles) > 1
        if has_encoded and not encoded:
            raise ReleaseError(_already_encoded(repository, metadata.category))
        if (
            served is not None
            and _is_same(served, metadata)
            and has_encoded == encoded
            and (signature is None or _is_signed(repository, served, signature))
        ):
            # What an `add` that was killed left undone.
            configs = category.published_configs(served)
            current = switch(category, folder, configs, served.served_before, procedure)
            category = read_category(repository, category.name)
            pruned = prune(category, keep, folder / _PRUNED, say, lagging=not current)
            return Addition(metadata, served.version, added=False, pruned=pruned)
        check_graphs(bundle)
        candidate = lay_out(bundle, category, folder / _CANDIDATE, encoded=encoded, cores=cores)
        say(
            f"Serving {metadata.category} on an embedded Triton to compare it with "
            f"{len(references.images)} reference images ..."
        )
        measured = gate.compare(
            candidate, references, agreement_set=agreement_set, ready_timeout=ready_timeout
        )
        say(
            f"Agrees with training: largest difference of a score {measured.score_difference:.2g} "
            f"(tolerance {measured.score_tolerance:g}), of a map {measured.map_difference:.2g} "
            f"(tolerance {measured.map_tolerance:g})."
        )
        if measured.agreement is not None:
            say(f"{metadata.precision} agrees with fp32: {describe(measured.agreement)}.")
        candidate = record(candidate, measured)
        if signature is not None:
            signatures.keep(bundle, signature, candidate)
        current = publish(candidate, category, procedure)
        category = read_category(repository, category.name)
        pruned = prune(category, keep, folder / _PRUNED, say, lagging=not current)
    return Addition(candidate.metadata, candidate.version, added=True, pruned=pruned)


def _is_same(served: Release, metadata: ReleaseMetadata) -> bool:
    """Tell whether a bundle is what is served already, but for what each gate measures anew."""
    return served.metadata.as_exported() == metadata.as_exported()


def _is_signed(repository: Path, served: Release, signature: ReleaseSignature) -> bool:
    """Tell whether what is served keeps this very signature."""
    return signatures.kept_text(repository, served) == signature.to_json()


def _already_encoded(repository: Path, category: str) -> str:
    folder = repository / contract.encoded_model(category)
    return (
        f"{category} in {repository} has an encoded form, which every release of it needs; "
        f"leave --no-encoded out, or remove {folder} first"
    )
