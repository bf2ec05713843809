"""Triton's `config.pbtxt` for a category: its steps and the ensembles that are its forms.

Built as protobuf messages from the contract's signatures, so that a tensor is
named in one place only. The same files are served by the embedded server and
by NVIDIA's container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import (
    CONTRACTS,
    FULL_DEPTH,
    NETWORK_STEPS,
    NEWEST,
    Priority,
    Signature,
    Step,
    TensorSpec,
)
from diffusionad_client.images import Limits
from diffusionad_tools.errors import RepositoryError

MAX_BATCH_SIZE = 8  # images; on a CPU larger batches bring nothing, on a GPU they are the caller's
MAX_QUEUE_SIZE = 64  # requests of one priority; a caller that is turned away soon can still react
MAX_WAITING_FILES = 32  # of one priority, in front of the decoding; each may be 64 MiB long
# How long a request may wait in the queue. A caller's own timeout can only
# shorten it, and is ignored where it is 0.
QUEUE_TIMEOUT_US = 300_000_000
BACKEND = "onnxruntime"
PYTHON_BACKEND = "python"
ENSEMBLE = "ensemble"
DECODERS = 2  # processes, each decodes one image at a time; they add up to the cores there are
# Parameter of a served ensemble: the versions served before it, the latest last.
SERVED_BEFORE = "diffusionad_served_before"
_REMEMBERED = 20  # a line that goes to and fro between two releases must not grow its file

# Where requests wait; what has got past it is worth finishing.
FIRST_STEP = next(iter(NETWORK_STEPS))
_PARAMETERS = {  # strings, whatever they mean
    "intra_op_thread_count": "0",  # as many threads as there are cores
    # Of the Python backend, on which the embedded server's runs: leave on the
    # GPU what a step before left there. The native backend does not know it.
    "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
}
_JUDGEMENT_PARAMETERS = {"intra_op_thread_count": "1"}  # three comparisons

_COMMENT = "# Written by `diffusionad release`; {purpose}\n"
_STEP_PURPOSE = "tune instance_group and parameters here, the rest is the contract's."
_DECODING_PURPOSE = "tune instance_group and the limits here, the rest is the contract's."
_ENSEMBLE_PURPOSE = "a release's metadata and exact step versions, not to be edited."


def step_config(
    category: str, step: Step, size: int, versions: Iterable[int], agreed: int = NEWEST
) -> pb.ModelConfig:
    """Configure one step under the contract `agreed` to serve exactly `versions`.

    Nothing but those differs from release to release: all versions of a step
    share this one file. Without a `kind` the instance runs on the GPU where
    there is one and on the CPU elsewhere, but for the judgement, which has no
    business there; without a `count` the native backend would make two of them
    on a CPU.
    """
    signature = contract.step_signature(step, size, agreed)
    group = pb.ModelInstanceGroup(count=1)
    if step is Step.JUDGEMENT:
        group.kind = pb.ModelInstanceGroup.KIND_CPU
    config = pb.ModelConfig(
        name=contract.step_model(category, step, agreed),
        backend=BACKEND,
        max_batch_size=MAX_BATCH_SIZE,
        input=_inputs(signature),
        output=_outputs(signature),
        instance_group=[group],
        dynamic_batching=queue(MAX_QUEUE_SIZE) if step is FIRST_STEP else pb.ModelDynamicBatching(),
        model_warmup=[
            _warmup("one image", 1, signature),
            _warmup("largest batch", MAX_BATCH_SIZE, signature),
        ],
    )
    parameters = _JUDGEMENT_PARAMETERS if step is Step.JUDGEMENT else _PARAMETERS
    for parameter, value in parameters.items():
        config.parameters[parameter].string_value = value
    serve_versions(config, versions)
    return config


def serve_versions(config: pb.ModelConfig, versions: Iterable[int]) -> None:
    """Make a configuration serve exactly `versions`."""
    config.version_policy.specific.versions[:] = sorted(set(versions))


def versions_named(path: Path) -> set[int]:
    """Read which versions a configuration serves. Raises `RepositoryError`."""
    return set(read(path).version_policy.specific.versions)


def decoding_config(size: int, depth: int = FULL_DEPTH) -> pb.ModelConfig:
    """Configure the model that decodes image files for all categories of one size and depth.

    It serves every version that it has: an ensemble of an older release names
    an older one. Files wait in a queue of their own, for the ensemble has none,
    and are handed to a process one at a time: of several taken at once, an
    urgent one that comes meanwhile would wait for all.
    """
    signature = contract.decoding_signature(size)
    config = pb.ModelConfig(
        name=contract.decoding_model(size, depth),
        backend=PYTHON_BACKEND,
        max_batch_size=MAX_BATCH_SIZE,
        input=_inputs(signature),
        output=_outputs(signature),
        instance_group=[pb.ModelInstanceGroup(count=DECODERS, kind=pb.ModelInstanceGroup.KIND_CPU)],
        version_policy=pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All()),
        dynamic_batching=queue(MAX_WAITING_FILES),
    )
    one_at_a_time(config)
    limits = Limits()
    for name, value in (
        ("size", size),
        ("resize", contract.RESIZE),
        ("max_bytes", limits.max_bytes),
        ("max_pixels", limits.max_pixels),
        *([] if depth == FULL_DEPTH else [("depth", depth)]),
    ):
        config.parameters[name].string_value = str(value)
    return config


def ensemble_config(
    metadata: ReleaseMetadata, version: int, step_versions: Mapping[Step, int]
) -> pb.ModelConfig:
    """Configure a category's public model: one release, pinned to exact step versions."""
    return _ensemble(
        metadata.category,
        contract.ensemble_signature(metadata.size, metadata.contract),
        _steps(metadata, step_versions),
        metadata,
        version,
    )


def encoded_config(
    metadata: ReleaseMetadata,
    version: int,
    step_versions: Mapping[Step, int],
    decoding_version: int,
) -> pb.ModelConfig:
    """Configure a category's encoded form: the same release behind the decoding of a file."""
    signature = contract.decoding_signature(metadata.size)
    decoding = _ensemble_step(
        contract.decoding_model(metadata.size, metadata.depth),
        decoding_version,
        signature,
        {tensor.name: tensor.name for tensor in signature.outputs},
    )
    return _ensemble(
        contract.encoded_model(metadata.category),
        contract.encoded_signature(metadata.size, metadata.contract),
        [decoding, *_steps(metadata, step_versions)],
        metadata,
        version,
    )


def ensemble_configs(
    metadata: ReleaseMetadata,
    version: int,
    step_versions: Mapping[Step, int],
    decoding_version: int | None,
) -> list[pb.ModelConfig]:
    """Configure every ensemble of one release, the category's plain form first.

    Without a `decoding_version` there is no encoded form.
    """
    plain = ensemble_config(metadata, version, step_versions)
    if decoding_version is None:
        return [plain]
    return [plain, encoded_config(metadata, version, step_versions, decoding_version)]


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


def queue(most: int) -> pb.ModelDynamicBatching:
    """Bound the queue, and let urgent requests go ahead: only those that ask for it."""
    return pb.ModelDynamicBatching(
        priority_levels=len(Priority),
        default_priority_level=Priority.BATCH,
        default_queue_policy=pb.ModelQueuePolicy(
            timeout_action=pb.ModelQueuePolicy.REJECT,
            default_timeout_microseconds=QUEUE_TIMEOUT_US,
            allow_timeout_override=True,
            max_queue_size=most,
        ),
    )


def one_at_a_time(config: pb.ModelConfig) -> None:
    """Hand requests over one by one: of several, an urgent one that comes next waits for all.

    Not where there is only one instance: Triton 2.51's batcher, once asleep,
    is woken by a request that is queued, not by an instance that is free, and
    batches hide that. The delay never holds anything back, since a preferred
    batch is sent at once; it leads past most of those pauses.
    """
    config.dynamic_batching.preferred_batch_size[:] = [1]
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_TIMEOUT_US


def render(config: pb.ModelConfig) -> str:
    """Write a configuration as the text of a `config.pbtxt`."""
    if config.platform == ENSEMBLE:
        purpose = _ENSEMBLE_PURPOSE
    else:
        purpose = _DECODING_PURPOSE if config.backend == PYTHON_BACKEND else _STEP_PURPOSE
    text: str = text_format.MessageToString(config, as_utf8=True)
    return _COMMENT.format(purpose=purpose) + text


def read(path: Path) -> pb.ModelConfig:
    """Read a `config.pbtxt`. Raises `RepositoryError`."""
    config = pb.ModelConfig()
    try:
        config.CopyFrom(_parse(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"{path}: cannot be read: {exc}") from exc
    except text_format.ParseError as exc:
        raise RepositoryError(f"{path}: not a Triton model configuration: {exc}") from exc
    return config


@lru_cache(maxsize=128)
def _parse(text: str) -> pb.ModelConfig:
    """Parse each text once: a change of a release reads the same files many times. Copy it."""
    config: pb.ModelConfig = text_format.Parse(text, pb.ModelConfig())
    return config


def _ensemble(
    name: str,
    signature: Signature,
    steps: list[pb.ModelEnsembling.Step],
    metadata: ReleaseMetadata,
    version: int,
) -> pb.ModelConfig:
    config = pb.ModelConfig(
        name=name,
        platform=ENSEMBLE,
        max_batch_size=MAX_BATCH_SIZE,
        input=_inputs(signature),
        output=_outputs(signature),
        ensemble_scheduling=pb.ModelEnsembling(step=steps),
    )
    serve_versions(config, [version])
    config.parameters[contract.METADATA_PARAMETER].string_value = metadata.to_json()
    return config


def _steps(
    metadata: ReleaseMetadata, step_versions: Mapping[Step, int]
) -> list[pb.ModelEnsembling.Step]:
    agreed = metadata.contract
    steps = []
    for step in CONTRACTS[agreed]:
        signature = contract.step_signature(step, metadata.size, agreed)
        outputs = {
            tensor.name: contract.tensor_in_ensemble(step, tensor.name, agreed)
            for tensor in signature.outputs
        }
        model = contract.step_model(metadata.category, step, agreed)
        steps.append(_ensemble_step(model, step_versions[step], signature, outputs))
    return steps


def _ensemble_step(
    model: str, version: int, signature: Signature, outputs: Mapping[str, str]
) -> pb.ModelEnsembling.Step:
    """One step; `outputs` maps what it makes to the ensemble's tensors, whose names inputs have."""
    return pb.ModelEnsembling.Step(
        model_name=model,
        model_version=version,
        input_map={tensor.name: tensor.name for tensor in signature.inputs},
        output_map=outputs,
    )


def _inputs(signature: Signature) -> list[pb.ModelInput]:
    return [pb.ModelInput(**_tensor(tensor)) for tensor in signature.inputs]


def _outputs(signature: Signature) -> list[pb.ModelOutput]:
    return [pb.ModelOutput(**_tensor(tensor)) for tensor in signature.outputs]


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": _data_type(tensor), "dims": tensor.dims}


def _data_type(tensor: TensorSpec) -> int:
    name = "STRING" if tensor.dtype == "BYTES" else tensor.dtype  # as configurations call it
    value: int = pb.DataType.Value(f"TYPE_{name}")
    return value


def _warmup(name: str, batch_size: int, signature: Signature) -> pb.ModelWarmup:
    """Run the graph at load, so that the first part on the line does not wait for it."""
    return pb.ModelWarmup(
        name=name,
        batch_size=batch_size,
        inputs={
            tensor.name: pb.ModelWarmup.Input(
                data_type=_data_type(tensor), dims=tensor.dims, zero_data=True
            )
            for tensor in signature.inputs
        },
    )
