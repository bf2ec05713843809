"""Open an ONNX Runtime session as a `config.pbtxt` asks for it, in the native backend's words.

Runs inside Triton's stub process: it imports nothing of ours but its neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state
from ort_signature import Json, ModelLoadError

# onnxruntime raises one class for each status, without a base of their own,
# and Python's own for arguments that it refuses before a run.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(ort_state).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    TypeError,
    ValueError,
)

TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"

GRAPH_LEVELS = {  # Triton's optimization { graph { level } } -> onnxruntime's
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
EXECUTION_MODES = {
    "0": ort.ExecutionMode.ORT_SEQUENTIAL,
    "1": ort.ExecutionMode.ORT_PARALLEL,
}
PRECISIONS = {  # precision_mode of the accelerator -> the option of TensorRT's provider
    "FP16": "trt_fp16_enable",
    "BF16": "trt_bf16_enable",
    "INT8": "trt_int8_enable",
}
TENSORRT_OPTIONS = {  # those that the native backend names differently
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}


def open_session(path: str, config: Json, *, on_gpu: bool, device: int) -> ort.InferenceSession:
    """Load the graph. Raises `ModelLoadError` with ONNX Runtime's own reason."""
    wanted = providers(config, on_gpu=on_gpu, device=device)
    options = session_options(config)
    if not os.path.isfile(path):
        raise ModelLoadError(f"{path}: no such file")
    try:
        session = ort.InferenceSession(path, options, providers=wanted)
    except ORT_ERRORS as exc:
        raise ModelLoadError(f"{path}: {exc}") from exc
    if name_of(wanted[0]) == TENSORRT and TENSORRT not in session.get_providers():
        # onnxruntime says nothing and takes the next provider.
        raise ModelLoadError(
            "the execution accelerator 'tensorrt' cannot be used here: this onnxruntime does not "
            "find TensorRT's libraries; install tensorrt, or serve without the configuration "
            "that asks for it"
        )
    return session


def session_options(config: Json) -> ort.SessionOptions:
    """Read the options that the native backend reads, `parameters` as strings."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; the rest drowns Triton's log
    # Every model here is a process of its own: threads that spin while idle
    # would take the cores from the model that runs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = GRAPH_LEVELS.get(level, GRAPH_LEVELS[0])
    parameters = {key: p["string_value"] for key, p in config.get("parameters", {}).items()}
    for parameter, (option, read, example) in PARAMETERS.items():
        if parameter in parameters:
            try:
                value = read(parameters[parameter])
            except (KeyError, ValueError) as exc:
                raise ModelLoadError(
                    f"parameter {parameter} is {parameters[parameter]!r}; give {example}, such as "
                    f'{{ key: "{parameter}" value {{ string_value: "1" }} }}'
                ) from exc
            setattr(options, option, value)
    return options


def thread_count(text: str) -> int:
    """Read a number of threads; 0 is onnxruntime's choice, one for each core."""
    return max(0, int(text))


def switch(text: str) -> bool:
    """Read a switch as Triton's C++ backends do."""
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


# Triton's parameter -> the option of onnxruntime.SessionOptions, how to read it, what it must be
PARAMETERS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "intra_op_thread_count": ("intra_op_num_threads", thread_count, "a number of threads"),
    "inter_op_thread_count": ("inter_op_num_threads", thread_count, "a number of threads"),
    "execution_mode": ("execution_mode", EXECUTION_MODES.__getitem__, "0 or 1"),
    "enable_mem_arena": ("enable_cpu_mem_arena", switch, "true or false"),
    "enable_mem_pattern": ("enable_mem_pattern", switch, "true or false"),
}


def providers(config: Json, *, on_gpu: bool, device: int) -> list[Any]:
    """Choose where the graph runs: on the instance's device if this onnxruntime is made for it.

    Accelerators of a CPU are refused, those of a GPU ignored on an instance
    without one, as the native backend does. Whether the device can be reached
    is known only once a session is open.
    """
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for asked in accelerators.get("cpu_execution_accelerator", []):
        raise unknown_accelerator(asked["name"])
    if not on_gpu:
        return [CPU]
    available = ort.get_available_providers()
    options: dict[str, dict[str, str]] = {CUDA: {}}
    for asked in accelerators.get("gpu_execution_accelerator", []):
        parameters = asked.get("parameters", {})
        if asked["name"] == "tensorrt" and TENSORRT in available:
            options = {TENSORRT: tensorrt_options(parameters), **options}
        elif asked["name"] == "cuda" and CUDA in available:
            options[CUDA] = dict(parameters)
        else:
            raise unknown_accelerator(asked["name"])
    chosen = [
        (name, {"device_id": str(device), **own})
        for name, own in options.items()
        if name in available
    ]
    return [*chosen, CPU]


def tensorrt_options(parameters: dict[str, str]) -> dict[str, str]:
    """Translate an accelerator's parameters into options of TensorRT's provider."""
    options: dict[str, str] = {}
    for key, value in parameters.items():
        if key == "precision_mode":
            if value not in (*PRECISIONS, "FP32"):
                raise ModelLoadError(
                    f"precision_mode is {value!r}; give one of FP32, {', '.join(PRECISIONS)}"
                )
            options |= {PRECISIONS[value]: "1"} if value in PRECISIONS else {}
        elif key in TENSORRT_OPTIONS:
            options[TENSORRT_OPTIONS[key]] = value
        elif key.startswith("trt_"):
            options[key] = value
        else:
            raise ModelLoadError(f"the execution accelerator 'tensorrt' has no parameter {key!r}")
    return options


def unknown_accelerator(name: str) -> ModelLoadError:
    """Make the error for an accelerator that the installed onnxruntime does not have."""
    return ModelLoadError(
        f"the execution accelerator {name!r} is not in the embedded server's onnxruntime "
        f"{ort.__version__}; remove it from the configuration, or serve with NVIDIA's container"
    )


def name_of(provider: Any) -> str:
    """Name a provider as onnxruntime takes it, with options or without."""
    return provider if isinstance(provider, str) else provider[0]
