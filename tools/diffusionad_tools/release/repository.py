"""Read which releases a model repository holds. Writing is `publish`'s.

    REPOSITORY/
      screw/                       the ensemble
        config.pbtxt               the release that is served
        1/release.pbtxt            each release as it was published
        2/release.pbtxt
      screw__noise_prediction/     one folder for each step
        config.pbtxt               shared by all versions, names those that are served
        1/model.onnx
        2/model.onnx
      ...

Triton reads `config.pbtxt` only. `release.pbtxt` is the whole configuration of
the ensemble at that version: the history that the one `config.pbtxt` forgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.contract import Step
from diffusionad_client.errors import MetadataError
from diffusionad_client.metadata import ReleaseMetadata
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import model_config

CONFIG_FILE = "config.pbtxt"
RELEASE_FILE = "release.pbtxt"
GRAPH_FILE = "model.onnx"


@dataclass(frozen=True)
class Release:
    """One version of a category's ensemble."""

    version: int
    metadata: ReleaseMetadata
    step_versions: dict[Step, int]
    served: bool


def categories(repository: Path) -> list[str]:
    """Name the categories in the repository; models that are none of ours are left out."""
    if not repository.is_dir():
        raise RepositoryError(
            f"{repository}: no such model repository; "
            f"`diffusionad release add BUNDLE --repository {repository}` makes one"
        )
    configs = sorted(repository.glob(f"*/{CONFIG_FILE}"))
    return [p.parent.name for p in configs if _is_ours(model_config.read(p))]


def releases(repository: Path, category: str) -> list[Release]:
    """Every release of a category, the oldest first; none if it has never been released."""
    served = served_release(repository, category)
    folder = repository / category
    past = [
        _release(folder / str(version) / RELEASE_FILE)
        for version in versions(folder)
        if (folder / str(version) / RELEASE_FILE).exists()
        and (served is None or version != served.version)
    ]
    return sorted([*past, *([served] if served else [])], key=lambda release: release.version)


def served_release(repository: Path, category: str) -> Release | None:
    """The release that a server of this repository serves."""
    path = repository / category / CONFIG_FILE
    return _release(path, served=True) if path.exists() else None


def highest_version(repository: Path, category: str) -> int:
    """The highest version that any part of the category has, 0 if it has none."""
    models = [category, *(contract.step_model(category, step) for step in Step)]
    return max((v for model in models for v in versions(repository / model)), default=0)


def versions(model: Path) -> list[int]:
    """The version folders of one model, as Triton counts them."""
    if not model.is_dir():
        return []
    return sorted(int(p.name) for p in model.iterdir() if p.name.isdecimal() and p.is_dir())


def _release(path: Path, *, served: bool = False) -> Release:
    config = model_config.read(path)
    if not _is_ours(config):
        raise RepositoryError(
            f"{path}: no parameter {contract.METADATA_PARAMETER!r}; "
            "`diffusionad release add` did not write this model"
        )
    versions_named = list(config.version_policy.specific.versions)
    if len(versions_named) != 1:
        raise RepositoryError(f"{path}: names the versions {versions_named}; a release has one")
    try:
        metadata = ReleaseMetadata.from_json(
            config.parameters[contract.METADATA_PARAMETER].string_value
        )
    except MetadataError as exc:
        raise RepositoryError(f"{path}: {exc}") from exc
    return Release(
        version=versions_named[0],
        metadata=metadata,
        step_versions=_pins(path, config),
        served=served,
    )


def _is_ours(config: pb.ModelConfig) -> bool:
    return contract.METADATA_PARAMETER in config.parameters


def _pins(path: Path, config: pb.ModelConfig) -> dict[Step, int]:
    pinned = {step.model_name: step.model_version for step in config.ensemble_scheduling.step}
    try:
        return {step: pinned[contract.step_model(config.name, step)] for step in Step}
    except KeyError as exc:
        raise RepositoryError(f"{path}: the ensemble lacks the step {exc}") from exc
