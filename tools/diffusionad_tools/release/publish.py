"""Change what a repository serves so that a crash at any point leaves one whole release.

Triton reads a repository when it starts, and a server that polls reads it at
any moment. So nothing may be in it that cannot be loaded, and a served
ensemble must find the exact step versions that it names. Hence the order: new
step versions, which no configuration names yet (and, for an encoded form, a
new version of the model that decodes, which serves all that it has); step
configurations that serve the old and the new; the ensembles, each of which
changes its release at one stroke; last, step configurations without the old
version, which only saves memory. All of it is written aside first: a full disk
stops it before anything is seen.

A server that polls may see several of these changes at once, and then takes
the old step version away a moment before it has the new ensemble: requests
fail until it does. `settle` waits between the changes for such servers. One
that loads on request is asked to before the last change: see `rollout`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client.contract import step_models
from diffusionad_tools.release import durable, model_config
from diffusionad_tools.release.candidate import Candidate, lay_out_ensembles
from diffusionad_tools.release.procedure import DEFAULT, Procedure
from diffusionad_tools.release.repository import (
    CONFIG_FILE,
    Category,
    config_files,
    versions,
)

_Move = tuple[Path, Path]  # from where it was written aside, to its place


def publish(candidate: Candidate, category: Category, procedure: Procedure = DEFAULT) -> bool:
    """Move a candidate into its category's repository and serve it. See the module for the order.

    The caller holds `staging` of it, and the candidate lies there. Returns what `switch` does.
    """
    served = category.served
    before = [] if served is None else [*served.served_before, served.version]
    if not category.repository.exists():
        durable.make_folder(category.repository)
    return switch(category, candidate.folder, candidate.ensembles(), before, procedure)


def switch(
    category: Category,
    aside: Path,
    ensemble_configs: Sequence[pb.ModelConfig],
    before: list[int],
    procedure: Procedure = DEFAULT,
) -> bool:
    """Serve the release that a category's ensembles configure, its plain form first.

    Version folders that the repository lacks lie in `aside`, below the names of
    their models; what else is written is written there too. `before` are the
    versions served before this one, see `model_config.remember`. Returns whether
    the steps have forgotten the release before: not while a server still needs it.
    """
    repository = category.repository
    plain = pb.ModelConfig()
    plain.CopyFrom(ensemble_configs[0])
    model_config.remember(plain, before)
    steps = list(step_models(category.name))
    current = [model_config.read(path) for path in _ensemble_files(category)]
    new = {step: model_config.pinned_versions(ensemble_configs, step) for step in steps}
    pinned = (
        step.model_name for config in ensemble_configs for step in config.ensemble_scheduling.step
    )
    decoders = sorted(set(pinned) - set(steps))
    now = _served_versions(repository, steps)
    both = {
        step: new[step].union(
            model_config.pinned_versions(current, step),
            # More than pinned while a server lags behind.
            *(served for file, served in now.items() if file.parts[0] == step),
        )
        for step in steps
    }
    then = {file: both[file.parts[0]] for file in now}
    widen = [
        *(move for name in [*steps, *decoders] for move in _folders(repository, aside, name)),
        *(move for name in decoders for move in _decoding_config(repository, aside, name)),
        *_step_configs(repository, aside / "both", both, now),
    ]
    change = [*_ensembles(repository, aside, [plain, *ensemble_configs[1:]])]
    narrow = [*_step_configs(repository, aside / "new", new, then)]
    _move(widen)
    time.sleep(procedure.settle if widen and change else 0.0)
    _move(change)
    forgotten = procedure.on_switch(category.name)
    if forgotten:
        time.sleep(procedure.settle if (widen or change) and narrow else 0.0)
        _move(narrow)
    return forgotten


def _move(moves: Iterable[_Move]) -> None:
    for source, target in moves:
        durable.move_into_place(source, target)


def _ensemble_files(category: Category) -> list[Path]:
    paths = [category.repository / name / CONFIG_FILE for name in category.ensembles]
    return [path for path in paths if path.exists()]


def _served_versions(repository: Path, models: Iterable[str]) -> dict[Path, set[int]]:
    """Map each configuration of the models, by its path in the repository, to what it serves.

    Those for kinds of hosts go along with the default: a server reads one of
    them in its place.
    """
    return {
        path.relative_to(repository): model_config.versions_named(path)
        for model in models
        for path in config_files(repository / model)
    }


def _folders(repository: Path, aside: Path, model: str) -> Iterator[_Move]:
    """Move a model's new version folders; all of the model if it is new itself."""
    if (aside / model).exists() and not (repository / model).exists():
        yield aside / model, repository / model
    else:
        new = set(versions(aside / model)) - set(versions(repository / model))
        for version in sorted(new):
            yield aside / model / str(version), repository / model / str(version)


def _decoding_config(repository: Path, aside: Path, model: str) -> Iterator[_Move]:
    """Bring in the configuration of a model that decodes, where it has changed."""
    written, path = aside / model / CONFIG_FILE, repository / model / CONFIG_FILE
    if written.exists() and path.exists() and model_config.read(written) != model_config.read(path):
        yield written, path


def _step_configs(
    repository: Path, aside: Path, wanted: dict[str, set[int]], now: dict[Path, set[int]]
) -> Iterator[_Move]:
    """Make steps serve the versions wanted, in whatever way they are tuned.

    A file that says so already stays as it is: servers reload what changes. So
    does a step that none is wanted of, one of another contract's: a model
    without a version would stop a server. A step that is not there yet brings
    its own.
    """
    durable.make_folder(aside)
    for file, served in now.items():
        versions_wanted = wanted[file.parts[0]]
        if versions_wanted and versions_wanted != served:
            config = model_config.read(repository / file)
            model_config.serve_versions(config, versions_wanted)
            written = aside / ".".join(file.parts)
            durable.write_text(written, model_config.render(config))
            yield written, repository / file


def _ensembles(repository: Path, aside: Path, configs: Iterable[pb.ModelConfig]) -> Iterator[_Move]:
    """Bring in each ensemble's version folder, then let its configuration name it."""
    durable.make_folder(aside / "ensembles")
    for config in configs:
        (version,) = config.version_policy.specific.versions
        if version not in {*versions(repository / config.name), *versions(aside / config.name)}:
            lay_out_ensembles([config], version, aside)  # the form is younger than the release
        yield from _folders(repository, aside, config.name)
        path = repository / config.name / CONFIG_FILE
        if path.exists() and model_config.read(path) != config:
            written = aside / "ensembles" / config.name
            durable.write_text(written, model_config.render(config))
            yield written, path
