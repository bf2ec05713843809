"""The models that a category is made of, as a server tells of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tritonclient.grpc import model_config_pb2, service_pb2

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import Signature, Step

MOST_AT_ONCE = 8  # images in a request
_ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Model:
    """One version of one model; an ensemble has steps."""

    name: str
    version: str
    signature: Signature
    platform: str = ""
    backend: str = ""
    steps: tuple[Model, ...] = ()
    step: Step | None = None  # that it is of a category


@lru_cache(maxsize=1024)
def category_models(
    category: str, size: int, depth: int, agreed: int, version: str, networks: str, encoded: bool
) -> Mapping[str, Model]:
    """Give the models of a release under the contract `agreed`, by name: its forms, its steps.

    And the one that decodes files, if the encoded form is served. The judgement
    has the release's `version`, the networks have theirs.
    """
    steps = tuple(
        Model(
            contract.step_model(category, step, agreed),
            version if step is Step.JUDGEMENT else networks,
            contract.step_signature(step, size, agreed),
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            step=step,
        )
        for step in contract.CONTRACTS[agreed]
    )
    plain = contract.ensemble_signature(size, agreed)
    models = [Model(category, version, plain, _ENSEMBLE, steps=steps), *steps]
    if encoded:
        name = contract.decoding_model(size, depth)
        decoding = Model(name, "1", contract.decoding_signature(size), backend="python")
        taking_files = contract.encoded_signature(size, agreed)
        form = contract.encoded_model(category)
        ensemble = Model(form, version, taking_files, _ENSEMBLE, steps=(decoding, *steps))
        models += [ensemble, decoding]
    return {model.name: model for model in models}


def model_config(model: Model, metadata: ReleaseMetadata) -> model_config_pb2.ModelConfig:
    """Give a model's configuration, with the release's metadata if it is an ensemble."""
    config = model_config_pb2.ModelConfig(
        name=model.name,
        platform=model.platform,
        backend=model.backend,
        max_batch_size=MOST_AT_ONCE,
    )
    if model.backend == "python":  # releases of several versions may ask for it
        config.version_policy.all.SetInParent()
    else:
        config.version_policy.specific.versions.append(int(model.version))
    for specs, tensors in (
        (model.signature.inputs, config.input),
        (model.signature.outputs, config.output),
    ):
        for spec in specs:
            name = "STRING" if spec.dtype == "BYTES" else spec.dtype
            kind = model_config_pb2.DataType.Value(f"TYPE_{name}")
            tensors.add(name=spec.name, data_type=kind, dims=spec.dims)
    if model.platform == _ENSEMBLE:
        for step in model.steps:
            _add_step(config, step, metadata.contract)
        config.parameters[contract.METADATA_PARAMETER].string_value = metadata.to_json()
    return config


def model_metadata(model: Model) -> service_pb2.ModelMetadataResponse:
    """Give what `ModelMetadata` says of a model."""
    told = service_pb2.ModelMetadataResponse(
        name=model.name, versions=[model.version], platform=model.platform or model.backend
    )
    for specs, tensors in (
        (model.signature.inputs, told.inputs),
        (model.signature.outputs, told.outputs),
    ):
        for spec in specs:
            tensors.add(name=spec.name, datatype=spec.dtype, shape=[-1, *spec.dims])
    return told


def _add_step(config: model_config_pb2.ModelConfig, step: Model, agreed: int) -> None:
    added = config.ensemble_scheduling.step.add(
        model_name=step.name, model_version=int(step.version)
    )
    for spec in step.signature.inputs:
        added.input_map[spec.name] = spec.name
    for spec in step.signature.outputs:
        inside = spec.name
        if step.step is not None:
            inside = contract.tensor_in_ensemble(step.step, spec.name, agreed)
        added.output_map[spec.name] = inside
