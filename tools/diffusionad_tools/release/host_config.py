"""Configurations of a step for one kind of host, beside the default that loads anywhere.

Triton's `--model-config-name NAME` takes `<model>/configs/NAME.pbtxt` in place
of `<model>/config.pbtxt`, and the default for every model that has no such
file. Each is whole, for Triton merges nothing: the default, and what its kind
of host wants differently.
"""

from __future__ import annotations

from collections.abc import Iterable

from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client.contract import Step
from diffusionad_tools.release.model_config import (
    FIRST_STEP,
    MAX_BATCH_SIZE,
    MAX_QUEUE_SIZE,
    one_at_a_time,
    queue,
)

ENGINE_CACHE = "/var/cache/diffusionad/tensorrt"  # mount a volume that outlives the container
_WORKSPACE_BYTES = 4 << 30
_NETWORKS = (Step.NOISE_PREDICTION, Step.SEGMENTATION)  # nearly all of the work
# On the embedded server each instance is a process with the graph in its memory.
MAX_INSTANCES = 8

_Accelerator = pb.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator


def host_configs(default: pb.ModelConfig, step: Step, cores: int) -> dict[str, pb.ModelConfig]:
    """Give a step's configuration for every kind of host, by name.

    `cpu` is for a host without a GPU that has so many `cores`. `cuda` insists on
    a GPU, where the default would settle for a CPU; `gpu` runs on it through
    TensorRT in half precision.

    On a CPU all steps share the cores. There the later ones go first, or else
    a server that is sent too much begins images faster than it ends them, and
    what lies between the steps grows.
    """
    cpu = pb.ModelConfig()
    cpu.CopyFrom(default)
    instances = min(cores, MAX_INSTANCES)
    # One thread for each core and instance: threads that wait for each other, spinning on the
    # native backend, take the cores from the step that has work.
    if step is Step.SEGMENTATION:
        cpu.dynamic_batching.CopyFrom(queue(MAX_QUEUE_SIZE))
    cpu.parameters["intra_op_thread_count"].string_value = str(cores // instances)
    for group in cpu.instance_group:
        group.count = instances if step in _NETWORKS else 1
        group.kind = pb.ModelInstanceGroup.KIND_CPU
    if step in _NETWORKS and instances > 1:
        one_at_a_time(cpu)  # a larger batch is no faster on a CPU
    if step is not FIRST_STEP:
        cpu.optimization.priority = pb.ModelOptimizationPolicy.PRIORITY_MAX

    cuda = pb.ModelConfig()
    cuda.CopyFrom(default)
    for group in cuda.instance_group:
        group.kind = pb.ModelInstanceGroup.KIND_GPU

    gpu = pb.ModelConfig()
    gpu.CopyFrom(cuda)
    gpu.optimization.execution_accelerators.gpu_execution_accelerator.append(_tensorrt(gpu.input))
    return {"cpu": cpu, "cuda": cuda, "gpu": gpu}


def _tensorrt(
    inputs: Iterable[pb.ModelInput],
) -> pb.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator:
    """Configure TensorRT below ONNX Runtime.

    An engine is built when a model is first loaded, for all batch sizes at
    once, and kept. ONNX Runtime finds it again by the names in the graph, not
    by its weights: exported graphs have a name of their own for that reason,
    and `trt_engine_cache_prefix`, which would replace it, must stay unset.
    """
    inputs = list(inputs)
    parameters = {
        "precision_mode": "FP16",
        "trt_layer_norm_fp32_fallback": "1",
        "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": ENGINE_CACHE,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": ENGINE_CACHE,
        "trt_profile_min_shapes": _shapes(inputs, 1),
        "trt_profile_opt_shapes": _shapes(inputs, MAX_BATCH_SIZE),
        "trt_profile_max_shapes": _shapes(inputs, MAX_BATCH_SIZE),
    }
    return _Accelerator(name="tensorrt", parameters=parameters)


def _shapes(inputs: Iterable[pb.ModelInput], batch: int) -> str:
    """Write shapes as TensorRT's profiles have them: `IMAGE:8x256x256x3,...`."""
    return ",".join(
        f"{tensor.name}:{'x'.join(str(n) for n in (batch, *tensor.dims))}" for tensor in inputs
    )
