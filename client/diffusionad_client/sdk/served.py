"""A category as a server serves it: its configuration, held against the contract."""

from __future__ import annotations

from dataclasses import dataclass

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.errors import ContractError, MetadataError
from diffusionad_client.sdk.transports.base import ModelConfig


@dataclass(frozen=True)
class ServedModel:
    """A category as a server serves it."""

    model: str  # the category, or its encoded form
    version: str
    metadata: ReleaseMetadata


def read_served(model: str, version: str, config: ModelConfig, url: str) -> ServedModel:
    """Read what a server at `url` serves as a model's version. Raises `ContractError`."""
    where = f"{model} version {version} on {url}"
    document = config.parameters.get(contract.METADATA_PARAMETER)
    if document is None:
        raise ContractError(
            f"{where} is not a DiffusionAD category: "
            f"it has no parameter {contract.METADATA_PARAMETER!r}"
        )
    try:
        metadata = ReleaseMetadata.from_json(document)
    except MetadataError as exc:
        raise ContractError(f"{where}: {exc}") from exc
    encoded = model == contract.encoded_model(metadata.category)
    if not encoded and model != metadata.category:
        raise ContractError(f"{where}: its metadata is that of {metadata.category!r}")
    if metadata.resize != contract.RESIZE:
        raise ContractError(
            f"{where}: its images are resized by {metadata.resize!r}, this client knows "
            f"{contract.RESIZE!r}; install a diffusionad-client that matches the release"
        )
    form = contract.encoded_signature if encoded else contract.ensemble_signature
    _check_tensors(where, config, form(metadata.size, metadata.contract), metadata.size)
    return ServedModel(model, version, metadata)


def _check_tensors(
    where: str, config: ModelConfig, expected: contract.Signature, size: int
) -> None:
    for kind, served, wanted in (
        ("inputs", config.signature.inputs, expected.inputs),
        ("outputs", config.signature.outputs, expected.outputs),
    ):
        if set(served) != set(wanted):
            raise ContractError(
                f"{where}: the {kind} of a category of size {size} are "
                f"{_describe(wanted)}, not {_describe(served)}"
            )
    if not config.batched:
        raise ContractError(f"{where}: it takes no batches (max_batch_size is 0)")


def _describe(tensors: tuple[contract.TensorSpec, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype} {list(t.dims)}" for t in tensors) or "none"


def version_number(version: str) -> int:
    """Order versions: they are numbers, but for what is none of ours."""
    return int(version) if version.isdecimal() else -1
