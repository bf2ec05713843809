"""Look at a category's files for what would keep a server from serving its releases.

Nothing is started and nothing changed: configurations must be the contract's,
and what they name must be there. Every command that changes a category looks
first, so that no release is built on a repository that is broken already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.artifacts.bundle import file_digest
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import Step, step_models
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.folders import FolderKind, kinds
from diffusionad_tools.release import decoding, model_config
from diffusionad_tools.release.judgement import judgement
from diffusionad_tools.release.listing import listed
from diffusionad_tools.release.repository import (
    CONFIG_FILE,
    DECODING_FILE,
    GRAPH_FILE,
    RELEASE_FILE,
    Category,
    Release,
    ensembles,
    models,
    read_category,
    served_release,
)

_STEP_FIELDS = ("name", "backend", "platform", "input", "output")
_ENSEMBLE_FIELDS = (
    *("name", "backend", "platform", "input", "output"),
    *("max_batch_size", "ensemble_scheduling", "version_policy"),
)


def read_whole(repository: Path, category: str) -> Category:
    """Read a category that servers could serve, in a repository that they would not refuse.

    Raises `RepositoryError` that says what is wrong. A category that has never
    been served, because its first `add` was killed perhaps, is whole if what
    there is of it loads.
    """
    problems = [*unreadable(repository), *category_problems(repository, category)]
    found = list(dict.fromkeys(problems))
    if not found:
        return read_category(repository, category)
    raise RepositoryError(
        f"{category} in {repository} is incomplete, so nothing was changed; repair it first, for "
        "example from a copy of the repository\n" + listed(found)
    )


def category_problems(repository: Path, category: str) -> list[str]:
    """Say what is wrong with a category, a line each with its file; empty if nothing is."""
    there = [model for model in models(repository, category) if (repository / model).exists()]
    configs: dict[str, pb.ModelConfig] = {}
    problems = []
    forms: dict[str, Release] = {}
    for model in there:
        path = repository / model / CONFIG_FILE
        if not path.is_file():
            problems.append(f"{path}: missing")
            continue
        try:
            configs[model] = model_config.read(path)
        except RepositoryError as exc:
            problems.append(str(exc))
    if category in configs:
        try:
            forms = served_forms(repository, category)
        except RepositoryError as exc:  # a foreign model perhaps: nothing else of it is of interest
            return [str(exc)]
    needed = {model for release in forms.values() for model in release.pins}
    problems += [
        f"{repository / model / CONFIG_FILE}: missing" for model in sorted(needed - {*there})
    ]
    if problems:  # what follows compares configurations with each other
        return problems
    for model in step_models(category):
        if model in configs:
            problems += _missing_versions(repository / model, configs[model], GRAPH_FILE)
    if forms and not problems:
        problems += _contract_problems(repository, forms, configs)
    return problems


def served_forms(repository: Path, category: str) -> dict[str, Release]:
    """Map each ensemble of a category, its plain form first, to the release that it serves.

    They differ where a command was killed between the two; the next one puts that right.
    """
    forms = {}
    for name in ensembles(repository, category):
        release = served_release(repository, name)
        if release is not None:
            forms[name] = release
            if name != category and release.metadata.category != category:
                raise RepositoryError(
                    f"{repository / name / CONFIG_FILE}: not a form of {category}"
                )
    return forms


def graph_problems(repository: Path, release: Release) -> list[str]:
    """Say which graphs of a release are not the files that were published."""
    problems = []
    for step in release.step_versions:
        path = graph(repository, release, step)
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif step is Step.JUDGEMENT:
            if path.read_bytes() != judgement(release.metadata):
                problems.append(f"{path}: does not judge as the release's metadata say")
        elif file_digest(path) != release.metadata.digests[step.value]:
            problems.append(f"{path}: not the file that was published: its SHA-256 is another")
    return problems


def graph(repository: Path, release: Release, step: Step) -> Path:
    """Where the ONNX file of one step of a release lies."""
    model = release.step_model(step)
    return repository / model / str(release.step_versions[step]) / GRAPH_FILE


def require_servable(category: Category, release: Release) -> None:
    """Raise `RepositoryError` unless all files of a release, served or not, are as published."""
    repository, metadata = category.repository, release.metadata
    problems = graph_problems(repository, release)
    for name in category.ensembles:
        path = repository / name / str(release.version) / RELEASE_FILE
        if name != metadata.category and not path.exists():
            continue  # the form is younger than the release, which gets it when it is served
        try:
            problems += _ensemble_problems(path, model_config.read(path), name, release)
        except RepositoryError as exc:
            problems.append(str(exc))
    if problems:
        raise RepositoryError(
            f"{metadata.category} version {release.version} in {repository} cannot be served, "
            "nothing was changed; add its bundle again\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )


def unreadable(repository: Path) -> Iterator[str]:
    """Name what stops a whole server: one configuration, of whatever model, that it cannot read."""
    if not repository.is_dir():
        return
    for name, kind in kinds(repository).items():
        path = repository / name / CONFIG_FILE
        if kind is FolderKind.STRAY:
            continue
        if not path.exists():
            yield f"{path}: missing"
            continue
        try:
            model_config.read(path)
        except RepositoryError as exc:
            yield str(exc)


def _contract_problems(
    repository: Path, forms: dict[str, Release], configs: dict[str, pb.ModelConfig]
) -> Iterator[str]:
    served = next(iter(forms.values()))
    category, size = served.metadata.category, served.metadata.size
    if category not in configs:
        yield f"{repository}: the metadata of a model is that of {category!r}"
        return
    for model, (step, agreed) in step_models(category).items():
        if model not in configs:  # of a contract under which nothing is served
            continue
        path, config = repository / model / CONFIG_FILE, configs[model]
        expected = model_config.step_config(category, step, size, [], agreed)
        yield from _differences(path, config, expected, _STEP_FIELDS)
        versions = list(config.version_policy.specific.versions)
        for release in forms.values():
            if release.pins.get(model, versions[0]) not in versions:
                yield (
                    f"{path}: serves the versions {versions}, "
                    f"{category} needs {release.pins[model]}"
                )
        if config.max_batch_size < configs[category].max_batch_size:
            yield (
                f"{path}: max_batch_size is {config.max_batch_size}, "
                f"{category} takes {configs[category].max_batch_size}"
            )
    for name, release in forms.items():
        path = repository / name / CONFIG_FILE
        yield from _ensemble_problems(path, configs[name], name, release)
        if name != category:
            yield from _decoding_problems(repository, configs[name], release.metadata)
        yield from _missing_versions(repository / name, configs[name], RELEASE_FILE)
        yield from _edited(path, configs[name], release.version)


def _ensemble_problems(
    path: Path, config: pb.ModelConfig, name: str, release: Release
) -> Iterator[str]:
    """Hold the configuration of one ensemble, read from `path`, against its release."""
    metadata = release.metadata
    decoder = contract.decoding_model(metadata.size, metadata.depth)
    pinned = model_config.pinned_versions([config], decoder)
    expected = {
        ensemble.name: ensemble
        for ensemble in model_config.ensemble_configs(
            # Which version decodes is nobody's release: any that is there will do.
            metadata,
            release.version,
            release.step_versions,
            max(pinned, default=1),
        )
    }
    yield from _differences(path, config, expected[name], _ENSEMBLE_FIELDS)
    if metadata.changed().release != metadata.release:
        yield f"{path}: names the release {metadata.release!r}, but does not say what makes that"


def _decoding_problems(
    repository: Path, encoded: pb.ModelConfig, metadata: ReleaseMetadata
) -> Iterator[str]:
    """Look for the model that an encoded form's ensemble decodes with."""
    model = repository / contract.decoding_model(metadata.size, metadata.depth)
    path = model / CONFIG_FILE
    if not path.is_file():
        yield f"{path}: missing"
        return
    yield from decoding.problems(path, model_config.read(path), metadata)
    for version in model_config.pinned_versions([encoded], model.name):
        file = model / str(version) / DECODING_FILE
        if not file.is_file() or file.stat().st_size == 0:
            yield f"{file}: missing or empty, and {encoded.name} names the version"


def _edited(path: Path, config: pb.ModelConfig, version: int) -> Iterator[str]:
    """Compare what is served with what was published."""
    published = path.parent / str(version) / RELEASE_FILE
    if published.is_file():  # missing ones are told of already
        original = model_config.read(published)
        model_config.remember(original, model_config.served_before(config))
        if config != original:
            yield f"{path}: not what was published; {published} holds that"


def _missing_versions(model: Path, config: pb.ModelConfig, file: str) -> Iterator[str]:
    """Versions that a configuration names and that are not there."""
    named = config.version_policy.specific.versions
    if not named:
        yield f"{model / CONFIG_FILE}: its version_policy names no version"
    for version in named:
        path = model / str(version) / file
        if not path.is_file() or path.stat().st_size == 0:
            yield f"{path}: missing or empty, and {CONFIG_FILE} names the version"


def _differences(
    path: Path, config: pb.ModelConfig, expected: pb.ModelConfig, fields: tuple[str, ...]
) -> Iterator[str]:
    for field in fields:
        found, wanted = getattr(config, field), getattr(expected, field)
        if found != wanted:
            yield f"{path}: {field} is {_one_line(found)}, not {_one_line(wanted)}"


def _one_line(value: Any) -> str:
    """Show a field of a configuration: a word, a number, a message or a list of messages."""
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return "; ".join(" ".join(str(item).split()) for item in several) or "nothing"
