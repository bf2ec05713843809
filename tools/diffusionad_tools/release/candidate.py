"""A release laid out as a model repository of its own, before it is part of a real one.

The candidate is what the gate serves and what publishing moves into place, so
that the files that were tested are the files that are published.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.artifacts.bundle import Bundle
from diffusionad_client.artifacts.metadata import GateRecord, ReleaseMetadata
from diffusionad_client.contract import CONTRACTS, NETWORK_STEPS, Step
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release import decoding, durable, model_config, references
from diffusionad_tools.release.host_config import host_configs
from diffusionad_tools.release.judgement import judgement
from diffusionad_tools.release.repository import (
    CONFIG_FILE,
    CONFIGS_FOLDER,
    GRAPH_FILE,
    RELEASE_FILE,
    Category,
    config_files,
    ensembles,
)


@dataclass(frozen=True)
class Candidate:
    """A new version of a category in a folder that Triton can serve as it stands."""

    folder: Path
    metadata: ReleaseMetadata
    version: int

    def model(self, step: Step) -> Path:
        """Folder of one step's model."""
        return self.folder / contract.step_model(
            self.metadata.category, step, self.metadata.contract
        )

    @property
    def encoded(self) -> bool:
        """Tell whether it has an encoded form."""
        return len(ensembles(self.folder, self.metadata.category)) > 1

    def ensembles(self) -> list[pb.ModelConfig]:
        """Configurations of the ensembles, as they are laid out."""
        names = ensembles(self.folder, self.metadata.category)
        return [model_config.read(self.folder / name / CONFIG_FILE) for name in names]


def published(metadata: ReleaseMetadata) -> ReleaseMetadata:
    """Give a bundle's metadata as they are published: under the newest contract of its networks.

    The judgement, which came with contract 2, is made here, and so is no bundle's.
    """
    networks = [CONTRACTS[metadata.contract][step] for step in NETWORK_STEPS]
    newest = max(
        number
        for number, endings in CONTRACTS.items()
        if [endings[step] for step in NETWORK_STEPS] == networks
    )
    return replace(metadata, contract=newest)


def lay_out(
    bundle: Bundle, category: Category, folder: Path, *, encoded: bool = True, cores: int = 1
) -> Candidate:
    """Write the bundle into `folder` as the version that comes next of its category.

    `encoded` adds the form that takes image files; `cores` is how many a host
    without a GPU has, for a category that is new. Raises `ReleaseError` if
    the bundle does not belong with the category's releases there.
    """
    metadata = published(bundle.metadata)
    repository, version = category.repository, category.highest_version + 1
    _check_size(metadata, category)
    candidate = Candidate(folder, metadata, version)
    durable.make_folder(folder)
    for step in NETWORK_STEPS:
        model = candidate.model(step)
        config = _lay_out_step(candidate, step, repository)
        durable.copy(bundle.graph(step), model / str(version) / GRAPH_FILE)
        if not (repository / model.name).exists():
            _lay_out_host_configs(config, step, cores, model)
    if Step.JUDGEMENT in CONTRACTS[metadata.contract]:
        lay_out_judgement(candidate, repository)
    references.keep(bundle.references(), candidate.model(references.LAST_STEP) / str(version))
    pins = dict.fromkeys(CONTRACTS[metadata.contract], version)
    decoder = decoding.lay_out(repository, metadata, folder) if encoded else None
    configs = model_config.ensemble_configs(metadata, version, pins, decoder)
    lay_out_ensembles(configs, version, folder)
    return candidate


def lay_out_judgement(candidate: Candidate, repository: Path) -> None:
    """Write the step that judges by a candidate's thresholds."""
    model = candidate.model(Step.JUDGEMENT)
    _lay_out_step(candidate, Step.JUDGEMENT, repository)
    graph = judgement(candidate.metadata)
    durable.write_bytes(model / str(candidate.version) / GRAPH_FILE, graph)


def _lay_out_step(candidate: Candidate, step: Step, repository: Path) -> pb.ModelConfig:
    """Write a step's configuration, and a folder for its graph; return the configuration."""
    model = candidate.model(step)
    durable.make_folder(model)
    durable.make_folder(model / str(candidate.version))
    config = shared_config(repository, candidate.metadata, step)
    model_config.serve_versions(config, [candidate.version])
    durable.write_text(model / CONFIG_FILE, model_config.render(config))
    return config


def _lay_out_host_configs(default: pb.ModelConfig, step: Step, cores: int, model: Path) -> None:
    """Write a step's configurations for kinds of hosts; a model that has its own keeps them."""
    durable.make_folder(model / CONFIGS_FOLDER)
    for name, config in host_configs(default, step, cores).items():
        path = model / CONFIGS_FOLDER / f"{name}.pbtxt"
        durable.write_text(path, model_config.render(config))


def lay_out_ensembles(configs: Sequence[pb.ModelConfig], version: int, folder: Path) -> None:
    """Write a release's ensembles into `folder`, each configuration also as history keeps it."""
    for config in configs:
        text = model_config.render(config)
        ensemble = folder / config.name
        durable.make_folder(ensemble)
        durable.make_folder(ensemble / str(version))
        durable.write_text(ensemble / str(version) / RELEASE_FILE, text)
        durable.write_text(ensemble / CONFIG_FILE, text)


def record(candidate: Candidate, gate: GateRecord) -> Candidate:
    """Note in the ensembles' metadata what the gate measured; nothing else changes."""
    metadata = replace(candidate.metadata, gate=gate)
    configs = candidate.ensembles()
    for config in configs:
        config.parameters[contract.METADATA_PARAMETER].string_value = metadata.to_json()
        shutil.rmtree(candidate.folder / config.name)
    lay_out_ensembles(configs, candidate.version, candidate.folder)
    return replace(candidate, metadata=metadata)


def shared_config(repository: Path, metadata: ReleaseMetadata, step: Step) -> pb.ModelConfig:
    """Give the configuration of a step that all its versions share.

    The one that stands in the repository, tuned by hand perhaps, is kept if
    its tensors are the contract's; a first release gets a new one. Those for
    kinds of hosts are held against the contract too.
    """
    fresh = model_config.step_config(metadata.category, step, metadata.size, [], metadata.contract)
    model = repository / fresh.name
    standing = {path: model_config.read(path) for path in config_files(model)}
    for path, config in standing.items():
        if list(config.input) != list(fresh.input) or list(config.output) != list(fresh.output):
            raise ReleaseError(
                f"{path}: its tensors are not those of {step.value} at {metadata.size} x "
                f"{metadata.size} pixels; put the file right, or release under another category"
            )
    return standing.get(model / CONFIG_FILE, fresh)


def _check_size(metadata: ReleaseMetadata, category: Category) -> None:
    served = category.served
    if served is not None and served.metadata.size != metadata.size:
        raise ReleaseError(
            f"{category.name} in {category.repository} is {served.metadata.size} pixels wide, "
            f"the bundle {metadata.size}; a category's size is fixed for its life, so train the "
            "other size under another category"
        )
