"""Triton's `config.pbtxt` for a category: its three steps and the ensemble that is its face.

Built as protobuf messages from the contract's signatures, so that a tensor is
named in one place only. The same files are served by the embedded server and
by NVIDIA's container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.contract import Signature, Step, TensorSpec
from diffusionad_client.metadata import ReleaseMetadata
from diffusionad_tools.errors import RepositoryError

MAX_BATCH_SIZE = 8  # images; on a CPU larger batches bring nothing, on a GPU they are the caller's
BACKEND = "onnxruntime"
ENSEMBLE = "ensemble"
# Parameter of a served ensemble: the versions served before it, the latest last.
SERVED_BEFORE = "diffusionad_served_before"
_REMEMBERED = 20  # a line that goes to and fro between two releases must not grow its file

_COMMENT = "# Written by `diffusionad release`; {purpose}\n"
_STEP_PURPOSE = "tune instance_group and parameters here, the rest is the contract's."
_ENSEMBLE_PURPOSE = "a release's metadata and exact step versions, not to be edited."


def step_config(category: str, step: Step, size: int, versions: Iterable[int]) -> pb.ModelConfig:
    """Configure one step to serve exactly `versions`.

    Nothing but those differs from release to release: all versions of a step
    share this one file. Without a `kind` the instance runs on the GPU where
    there is one and on the CPU elsewhere; without a `count` the native backend
    would make two of them on a CPU.
    """
    signature = contract.step_signature(step, size)
    config = pb.ModelConfig(
        name=contract.step_model(category, step),
        backend=BACKEND,
        max_batch_size=MAX_BATCH_SIZE,
        input=_inputs(signature),
        output=_outputs(signature),
        instance_group=[pb.ModelInstanceGroup(count=1)],
        dynamic_batching=pb.ModelDynamicBatching(),
        model_warmup=[_warmup(signature)],
    )
    serve_versions(config, versions)
    return config


def serve_versions(config: pb.ModelConfig, versions: Iterable[int]) -> None:
    """Make a configuration serve exactly `versions`."""
    config.version_policy.specific.versions[:] = sorted(set(versions))


def ensemble_config(
    metadata: ReleaseMetadata, version: int, step_versions: Mapping[Step, int]
) -> pb.ModelConfig:
    """Configure a category's public model: one release, pinned to exact step versions."""
    signature = contract.ensemble_signature(metadata.size)
    config = pb.ModelConfig(
        name=metadata.category,
        platform=ENSEMBLE,
        max_batch_size=MAX_BATCH_SIZE,
        input=_inputs(signature),
        output=_outputs(signature),
        ensemble_scheduling=pb.ModelEnsembling(
            step=[
                _ensemble_step(metadata.category, step, metadata.size, step_versions[step])
                for step in Step
            ]
        ),
    )
    serve_versions(config, [version])
    config.parameters[contract.METADATA_PARAMETER].string_value = metadata.to_json()
    return config


def ensemble_configs(
    metadata: ReleaseMetadata, version: int, step_versions: Mapping[Step, int]
) -> list[pb.ModelConfig]:
    """Configure every ensemble of one release, the category's public face first.

    Their names are those of `repository.ensembles`.
    """
    return [ensemble_config(metadata, version, step_versions)]


def pinned_versions(ensembles: Iterable[pb.ModelConfig], model: str) -> set[int]:
    """The versions of a step's model that these ensembles ask for."""
    return {
        step.model_version
        for ensemble in ensembles
        for step in ensemble.ensemble_scheduling.step
        if step.model_name == model
    }


def remember(config: pb.ModelConfig, versions: Sequence[int]) -> None:
    """Record which versions were served before; within the one file that switches the release."""
    config.parameters.pop(SERVED_BEFORE, None)
    if versions:
        latest = versions[-_REMEMBERED:]
        config.parameters[SERVED_BEFORE].string_value = " ".join(map(str, latest))


def served_before(config: pb.ModelConfig) -> list[int]:
    """Read what `remember` recorded."""
    if SERVED_BEFORE not in config.parameters:
        return []
    text = config.parameters[SERVED_BEFORE].string_value
    return [int(version) for version in text.split() if version.isdecimal()]


def render(config: pb.ModelConfig) -> str:
    """Write a configuration as the text of a `config.pbtxt`."""
    purpose = _ENSEMBLE_PURPOSE if config.platform == ENSEMBLE else _STEP_PURPOSE
    text: str = text_format.MessageToString(config, as_utf8=True)
    return _COMMENT.format(purpose=purpose) + text


def read(path: Path) -> pb.ModelConfig:
    """Read a `config.pbtxt`. Raises `RepositoryError`."""
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
    except (OSError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"{path}: cannot be read: {exc}") from exc
    except text_format.ParseError as exc:
        raise RepositoryError(f"{path}: not a Triton model configuration: {exc}") from exc


def _ensemble_step(category: str, step: Step, size: int, version: int) -> pb.ModelEnsembling.Step:
    """One step; tensors keep their names inside the ensemble."""
    signature = contract.step_signature(step, size)
    return pb.ModelEnsembling.Step(
        model_name=contract.step_model(category, step),
        model_version=version,
        input_map={tensor.name: tensor.name for tensor in signature.inputs},
        output_map={tensor.name: tensor.name for tensor in signature.outputs},
    )


def _inputs(signature: Signature) -> list[pb.ModelInput]:
    return [pb.ModelInput(**_tensor(tensor)) for tensor in signature.inputs]


def _outputs(signature: Signature) -> list[pb.ModelOutput]:
    return [pb.ModelOutput(**_tensor(tensor)) for tensor in signature.outputs]


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": _data_type(tensor), "dims": tensor.dims}


def _data_type(tensor: TensorSpec) -> int:
    value: int = pb.DataType.Value(f"TYPE_{tensor.dtype}")
    return value


def _warmup(signature: Signature) -> pb.ModelWarmup:
    """Run the graph once at load, so that the first part on the line does not wait for it."""
    return pb.ModelWarmup(
        name="one image",
        batch_size=1,
        inputs={
            tensor.name: pb.ModelWarmup.Input(
                data_type=_data_type(tensor), dims=tensor.dims, zero_data=True
            )
            for tensor in signature.inputs
        },
    )
