"""Read which releases a model repository holds. Writing is `publish`'s.

    REPOSITORY/
      screw/                       the ensemble
        config.pbtxt               the release that is served, and those served before
        1/release.pbtxt            each release as it was published
        2/release.pbtxt
      screw__noise_prediction/     one folder for each step
        config.pbtxt               shared by all versions, names those that are served
        configs/gpu.pbtxt          the same for one kind of host, see `host_config`
        1/model.onnx
        2/model.onnx
      ...
      screw__segmentation/         the last of the networks: see `references`
        1/model.onnx
        1/references.npz
      screw__judgement/            of each release, not of its networks: see `judgement`
        2/model.onnx
      screw__encoded/              the encoded form, if there is one, laid out as the ensemble is
      image_decoding_256/          its first step, shared by all categories of that size
        config.pbtxt
        1/model.py

Triton reads `config.pbtxt`, or the one of `configs/` that it is told to.
`release.pbtxt` is the whole configuration of the ensemble at that version: the
history that the one `config.pbtxt` forgets. Releases of several contracts lie
side by side: what the steps of a contract are called, `contract` says.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import CONTRACTS, Step, step_model, step_models
from diffusionad_client.errors import MetadataError
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import model_config

CONFIG_FILE = "config.pbtxt"
CONFIGS_FOLDER = "configs"
RELEASE_FILE = "release.pbtxt"
GRAPH_FILE = "model.onnx"
DECODING_FILE = "model.py"


@dataclass(frozen=True)
class Release:
    """One version of a category's ensemble."""

    version: int
    metadata: ReleaseMetadata
    step_versions: dict[Step, int]
    served: bool
    published: float  # seconds since 1970: the time of its release file
    served_before: list[int] = field(default_factory=list)  # of the served one; the latest last

    def step_model(self, step: Step) -> str:
        """Name the model of one step."""
        return step_model(self.metadata.category, step, self.metadata.contract)

    @property
    def pins(self) -> dict[str, int]:
        """Map the model of each step to its version."""
        return {self.step_model(step): version for step, version in self.step_versions.items()}


@dataclass(frozen=True)
class Category:
    """A category as a repository holds it. Who changes it reads it once, under the lock."""

    repository: Path
    name: str
    ensembles: tuple[str, ...]  # see `ensembles`
    releases: tuple[Release, ...]  # the oldest first; none if it has never been released
    highest_version: int  # that any part of it has, 0 if it has none
    encoded: pb.ModelConfig | None  # of the encoded form, if it has that

    @property
    def served(self) -> Release | None:
        """The release that a server of this repository serves."""
        return next((release for release in self.releases if release.served), None)

    def release(self, version: int | None = None) -> Release:
        """Give one release, by default the served one.

        Raises `RepositoryError` that names those there are.
        """
        found = {release.version: release for release in self.releases}
        if not found:
            known = ", ".join(categories(self.repository)) or "no category"
            raise RepositoryError(f"{self.repository}: no category {self.name!r}; it holds {known}")
        if version is None:
            if self.served is None:
                raise RepositoryError(f"{self.repository / self.name / CONFIG_FILE}: missing")
            return self.served
        if version not in found:
            there = ", ".join(map(str, found))
            raise RepositoryError(
                f"{self.name} in {self.repository} has no version {version}; it has {there}"
            )
        return found[version]

    def decoding_version(self, metadata: ReleaseMetadata) -> int | None:
        """The version of the decoding model for a release, if the category has an encoded form.

        The one that is named now, or the newest where that is of another depth.
        """
        if self.encoded is None:
            return None
        decoder = contract.decoding_model(metadata.size, metadata.depth)
        pinned = model_config.pinned_versions([self.encoded], decoder)
        return max(pinned or versions(self.repository / decoder), default=None)

    def published_configs(self, release: Release) -> list[pb.ModelConfig]:
        """Read the configurations of a release's ensembles as they were published.

        A release from before the category had an encoded form gets the one it would have had.
        """
        metadata, version = release.metadata, release.version
        paths = (self.repository / name / str(version) / RELEASE_FILE for name in self.ensembles)
        derived = model_config.ensemble_configs(
            metadata, version, release.step_versions, self.decoding_version(metadata)
        )
        written = [model_config.read(path) for path in paths if path.exists()]
        return [*written, *derived[len(written) :]]


def read_category(repository: Path, name: str) -> Category:
    """Read all that a repository holds of a category, which may be nothing."""
    encoded = repository / contract.encoded_model(name) / CONFIG_FILE
    return Category(
        repository=repository,
        name=name,
        ensembles=ensembles(repository, name),
        releases=tuple(releases(repository, name)),
        highest_version=max(
            (v for model in models(repository, name) for v in versions(repository / model)),
            default=0,
        ),
        encoded=model_config.read(encoded) if encoded.exists() else None,
    )


def ensembles(repository: Path, category: str) -> tuple[str, ...]:
    """Name the ensembles that a category has, its plain form first; all pin the same steps.

    The encoded form is there or not for all releases alike.
    """
    encoded = contract.encoded_model(category)
    return (category, encoded) if (repository / encoded).exists() else (category,)


def models(repository: Path, category: str) -> tuple[str, ...]:
    """Name every model that may be a category's own: its ensembles, its steps of any contract."""
    return (*ensembles(repository, category), *step_models(category))


def categories(repository: Path) -> list[str]:
    """Name the categories in the repository; models that are none of ours are left out."""
    check_exists(repository)
    configs = sorted(repository.glob(f"*/{CONFIG_FILE}"))
    return [p.parent.name for p in configs if _is_plain_form(p.parent.name, model_config.read(p))]


def category_folders(repository: Path) -> list[str]:
    """Name the categories by their folders, also those that cannot be read or lack their ensemble.

    A folder is told from a foreign model by its metadata, or by steps beside it.
    """
    ends = tuple(step_models(""))
    with_steps = {
        path.name.removesuffix(end)
        for path in repository.iterdir()
        for end in ends
        if path.is_dir() and path.name.endswith(end)
    }
    found = {name for name in with_steps if contract.is_category(name)}
    for path in repository.glob(f"*/{CONFIG_FILE}"):
        with suppress(RepositoryError):
            if _is_plain_form(path.parent.name, model_config.read(path)):
                found.add(path.parent.name)
    return sorted(found)


def check_exists(repository: Path) -> None:
    """Raise `RepositoryError` unless the folder is there."""
    if not repository.is_dir():
        raise RepositoryError(
            f"{repository}: no such model repository; "
            f"`diffusionad release add BUNDLE --repository {repository}` makes one"
        )


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


def config_files(model: Path) -> list[Path]:
    """The configurations of a model, the default first: a server may be reading any of them."""
    default = model / CONFIG_FILE
    named = sorted((model / CONFIGS_FOLDER).glob("*.pbtxt"))
    return [default, *named] if default.exists() else named


def served_release(repository: Path, category: str) -> Release | None:
    """The release that a server of this repository serves."""
    path = repository / category / CONFIG_FILE
    return _release(path, served=True) if path.exists() else None


def find_release(repository: Path, category: str, version: int | None = None) -> Release:
    """Give one release of a category, by default the served one. See `Category.release`."""
    return read_category(repository, category).release(version)


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
    (version,) = versions_named
    folder = path.parent / str(version) if served else path.parent
    return Release(
        version=version,
        metadata=metadata,
        step_versions=_pins(path, config, metadata),
        served=served,
        published=_published(folder / RELEASE_FILE),
        served_before=[
            v for v in model_config.served_before(config) if (path.parent / str(v)).is_dir()
        ],
    )


def _published(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError as exc:
        raise RepositoryError(
            f"{path}: missing; it records the release as it was published"
        ) from exc


def _is_plain_form(model: str, config: pb.ModelConfig) -> bool:
    return contract.is_category(model) and _is_ours(config)


def _is_ours(config: pb.ModelConfig) -> bool:
    return contract.METADATA_PARAMETER in config.parameters


def _pins(path: Path, config: pb.ModelConfig, metadata: ReleaseMetadata) -> dict[Step, int]:
    pinned = {step.model_name: step.model_version for step in config.ensemble_scheduling.step}
    try:
        return {
            step: pinned[step_model(metadata.category, step, metadata.contract)]
            for step in CONTRACTS[metadata.contract]
        }
    except KeyError as exc:
        raise RepositoryError(f"{path}: the ensemble lacks the step {exc}") from exc
