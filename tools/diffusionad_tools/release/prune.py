"""Remove old releases, never one that is served nor what any ensemble pins.

First the ensembles' version folders, then the step versions that nothing asks
for any more: a crash in between leaves steps without a use, which the next
pruning finds, and never a release without its steps. Each folder is taken out
of the repository at one stroke and removed outside it.
"""

from __future__ import annotations

from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client.contract import step_models
from diffusionad_tools.release import durable, model_config
from diffusionad_tools.release.repository import (
    CONFIG_FILE,
    RELEASE_FILE,
    config_files,
    ensembles,
    releases,
    versions,
)

KEEP = 3  # releases of a category: the served one, the one before it, one more


def prune(repository: Path, category: str, keep: int, aside: Path) -> list[int]:
    """Keep the `keep` releases that matter most; return the versions of those that went.

    Those are the served one, those served before it, the latest first, and then
    the newest. Step versions that no ensemble pins go too, such as those of an
    `add` that was killed. The caller holds `staging(repository)`; `aside` is a
    folder in it.
    """
    durable.make_folder(aside)
    kept = _kept(repository, category, keep)
    gone = set()
    for name in ensembles(repository, category):
        for version in set(versions(repository / name)) - kept:
            _remove(repository / name / str(version), aside)
            gone.add(version)
    configs = _all_configs(repository)
    for model in step_models(category):
        named = map(model_config.versions_named, config_files(repository / model))
        asked_for = model_config.pinned_versions(configs, model).union(*named)
        for version in set(versions(repository / model)) - asked_for:
            _remove(repository / model / str(version), aside)
    return sorted(gone)


def _kept(repository: Path, category: str, keep: int) -> set[int]:
    found = releases(repository, category)
    served = [release for release in found if release.served]
    order = [release.version for release in served]
    order += [version for release in served for version in reversed(release.served_before)]
    order += sorted((release.version for release in found), reverse=True)
    # The highest stays, so that its number is never given to another release:
    # clients know a release by it.
    highest = {release.version for release in found[-1:]}
    return highest.union(list(dict.fromkeys(order))[:keep])


def _all_configs(repository: Path) -> list[pb.ModelConfig]:
    """Every configuration that is served or kept; also of ensembles that are none of ours."""
    paths = [*repository.glob(f"*/{CONFIG_FILE}"), *repository.glob(f"*/*/{RELEASE_FILE}")]
    return [model_config.read(path) for path in paths]


def _remove(folder: Path, aside: Path) -> None:
    durable.move_out(folder, aside / f"{folder.parent.name}.{folder.name}")
