"""Remove old releases, never one that is served nor what any ensemble pins.

First the ensembles' version folders, then the step versions that nothing asks
for any more, and the steps of a contract of which no release is left: a crash
in between leaves steps without a use, which the next pruning finds, and never
a release without its steps. Each folder is taken out of the repository at one
stroke and removed outside it, if all that it holds is a release's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client.artifacts.bundle import REFERENCES_FILE
from diffusionad_client.contract import step_models
from diffusionad_tools.release import durable, model_config
from diffusionad_tools.release.repository import (
    CONFIG_FILE,
    CONFIGS_FOLDER,
    GRAPH_FILE,
    RELEASE_FILE,
    Category,
    config_files,
    versions,
)
from diffusionad_tools.release.signatures import SIGNED_FILES

_GRAPH_FILES = {GRAPH_FILE, REFERENCES_FILE}
_RELEASE_FILES = {RELEASE_FILE, *SIGNED_FILES}

KEEP = 3  # releases of a category: the served one, the one before it, one more


def prune(
    category: Category,
    keep: int,
    aside: Path,
    say: Callable[[str], None],
    *,
    lagging: bool = False,
) -> list[int]:
    """Keep the `keep` releases that matter most; return the versions of those that went.

    Those are the served one, those served before it, the latest first, and then
    the newest. Step versions that no ensemble pins go too, such as those of an
    `add` that was killed; and whole steps that none does, but not while a server
    is `lagging` behind. The caller holds `staging` of the repository; `aside`
    is a folder in it; `say` is told what stays because of something in it.
    """
    repository = category.repository
    durable.make_folder(aside)
    kept = _kept(category, keep)
    gone = set()
    for name in category.ensembles:
        for version in set(versions(repository / name)) - kept:
            if _is_released(repository / name / str(version), _RELEASE_FILES, say):
                _remove(repository / name / str(version), aside)
                gone.add(version)
    configs = _all_configs(repository)
    for model in step_models(category.name):
        pinned = model_config.pinned_versions(configs, model)
        if not pinned and not lagging and _is_step(repository / model):
            _remove(repository / model, aside)
            continue
        named = map(model_config.versions_named, config_files(repository / model))
        for version in set(versions(repository / model)) - pinned.union(*named):
            if _is_released(repository / model / str(version), _GRAPH_FILES, say):
                _remove(repository / model / str(version), aside)
    return sorted(gone)


def _is_step(folder: Path) -> bool:
    """Tell whether a folder is a step's, and holds nothing that a release does not write."""
    if not folder.is_dir():
        return False
    graphs = [folder / str(version) for version in versions(folder)]
    configs = {path.name for path in config_files(folder)}
    known = {CONFIG_FILE, CONFIGS_FOLDER, *(path.name for path in graphs)}
    return (
        _holds_only(folder, known)
        and _holds_only(folder / CONFIGS_FOLDER, configs)
        and all(_holds_only(path, _GRAPH_FILES) for path in graphs)
    )


def _is_released(folder: Path, files: set[str], say: Callable[[str], None]) -> bool:
    """Tell whether a version folder holds nothing but what a release wrote."""
    if _holds_only(folder, files):
        return True
    strange = ", ".join(sorted({path.name for path in folder.iterdir()} - files))
    say(f"{folder} stays: it holds {strange}, which no release wrote")
    return False


def _holds_only(folder: Path, names: set[str]) -> bool:
    return not folder.is_dir() or {path.name for path in folder.iterdir()} <= names


def _kept(category: Category, keep: int) -> set[int]:
    found = category.releases
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
