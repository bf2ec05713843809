"""The model that decodes image files, in a repository: one for all categories of a size and depth.

A version is known by its content: an ensemble takes the one whose `model.py`
is this installation's, and a new one is written only if there is none. The
model serves every version that it has, so its configuration need not change
when one is added, and an ensemble finds the version it names at any time. One
from before files waited in a queue is given that.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

import diffusionad_tools
from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_tools.errors import ReleaseError
from diffusionad_tools.release import durable, model_config
from diffusionad_tools.release.repository import CONFIG_FILE, DECODING_FILE, versions

_SOURCE = files(diffusionad_tools) / "models" / "image_decoding" / DECODING_FILE
_CONTRACTS = ("size", "depth", "resize")  # parameters that nobody may tune


def lay_out(repository: Path, metadata: ReleaseMetadata, folder: Path) -> int:
    """Write the model into `folder`, which is a candidate's; return its version in `repository`.

    Raises `ReleaseError` if what stands in the repository is another model.
    """
    name = contract.decoding_model(metadata.size, metadata.depth)
    version = _version(repository / name)
    model = folder / name
    durable.make_folder(model)
    durable.make_folder(model / str(version))
    with as_file(_SOURCE) as source:
        durable.copy(source, model / str(version) / DECODING_FILE)
    config = _shared_config(repository, metadata)
    durable.write_text(model / CONFIG_FILE, model_config.render(config))
    return version


def problems(path: Path, config: pb.ModelConfig, metadata: ReleaseMetadata) -> list[str]:
    """Say what of a configuration, read from `path`, is not the contract's; empty if nothing is."""
    wanted = model_config.decoding_config(metadata.size, metadata.depth)
    found = []
    for name in _CONTRACTS:
        has = config.parameters[name].string_value if name in config.parameters else None
        needs = wanted.parameters[name].string_value if name in wanted.parameters else None
        if has != needs:
            found.append(f"{path}: its parameter {name} is {has!r}, not {needs!r}")
    if list(config.input) != list(wanted.input) or list(config.output) != list(wanted.output):
        found.append(f"{path}: its tensors are not those of {wanted.name}")
    if config.version_policy != wanted.version_policy:
        found.append(f"{path}: it does not serve all of its versions")
    if config.max_batch_size < wanted.max_batch_size:
        found.append(
            f"{path}: max_batch_size is {config.max_batch_size}, categories take "
            f"{wanted.max_batch_size}"
        )
    return found


def _version(model: Path) -> int:
    """Find the newest version with this installation's content, else name the next one."""
    source = _SOURCE.read_bytes()
    there = versions(model)
    for version in reversed(there):
        path = model / str(version) / DECODING_FILE
        if path.is_file() and path.read_bytes() == source:
            return version
    return max(there, default=0) + 1


def _shared_config(repository: Path, metadata: ReleaseMetadata) -> pb.ModelConfig:
    """Give the configuration that stands in the repository, tuned perhaps, or a new one."""
    fresh = model_config.decoding_config(metadata.size, metadata.depth)
    path = repository / fresh.name / CONFIG_FILE
    if not path.exists():
        return fresh
    config = model_config.read(path)
    for problem in problems(path, config, metadata):
        raise ReleaseError(f"{problem}; put the file right")
    if config.WhichOneof("scheduling_choice") is None:  # written before files waited in a queue
        config.dynamic_batching.CopyFrom(fresh.dynamic_batching)
    return config
