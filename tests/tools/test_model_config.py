"""The written `config.pbtxt` files, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import model_config
from diffusionad_tools.release.host_config import host_configs

GOLDEN_SEGMENTATION = """\
# Written by `diffusionad release`; tune instance_group and parameters here, \
the rest is the contract's.
name: "screw__segmentation"
version_policy {
  specific {
    versions: 3
  }
}
max_batch_size: 8
input {
  name: "IMAGE"
  data_type: TYPE_UINT8
  dims: 256
  dims: 256
  dims: 3
}
input {
  name: "reconstruction"
  data_type: TYPE_FP32
  dims: 3
  dims: 256
  dims: 256
}
output {
  name: "ANOMALY_MAP"
  data_type: TYPE_FP32
  dims: 256
  dims: 256
}
output {
  name: "SCORE"
  data_type: TYPE_FP32
  dims: 1
}
instance_group {
  count: 1
}
dynamic_batching {
}
parameters {
  key: "FORCE_CPU_ONLY_INPUT_TENSORS"
  value {
    string_value: "no"
  }
}
parameters {
  key: "intra_op_thread_count"
  value {
    string_value: "0"
  }
}
model_warmup {
  name: "one image"
  batch_size: 1
  inputs {
    key: "IMAGE"
    value {
      data_type: TYPE_UINT8
      dims: 256
      dims: 256
      dims: 3
      zero_data: true
    }
  }
  inputs {
    key: "reconstruction"
    value {
      data_type: TYPE_FP32
      dims: 3
      dims: 256
      dims: 256
      zero_data: true
    }
  }
}
model_warmup {
  name: "largest batch"
  batch_size: 8
  inputs {
    key: "IMAGE"
    value {
      data_type: TYPE_UINT8
      dims: 256
      dims: 256
      dims: 3
      zero_data: true
    }
  }
  inputs {
    key: "reconstruction"
    value {
      data_type: TYPE_FP32
      dims: 3
      dims: 256
      dims: 256
      zero_data: true
    }
  }
}
backend: "onnxruntime"
"""


@pytest.fixture
def metadata(make_bundle: Any) -> ReleaseMetadata:
    found: ReleaseMetadata = make_bundle().metadata
    return found


def test_a_step_configuration_is_written_as_agreed() -> None:
    config = model_config.step_config("screw", Step.SEGMENTATION, 256, [3])
    assert model_config.render(config) == GOLDEN_SEGMENTATION


@pytest.mark.parametrize("step", list(NETWORK_STEPS))
def test_a_step_configuration_reads_back_as_it_was_written(step: Step, tmp_path: Path) -> None:
    config = model_config.step_config("screw", step, 64, [2, 1])
    (tmp_path / "config.pbtxt").write_text(model_config.render(config))
    assert model_config.read(tmp_path / "config.pbtxt") == config
    assert list(config.version_policy.specific.versions) == [1, 2]


@pytest.mark.parametrize("step", list(NETWORK_STEPS))
def test_a_step_configuration_names_every_tensor_of_the_contract(step: Step) -> None:
    config = model_config.step_config("screw", step, 64, [1])
    signature = contract.step_signature(step, 64)
    assert [(t.name, tuple(t.dims)) for t in config.input] == [
        (t.name, t.dims) for t in signature.inputs
    ]
    assert [(t.name, tuple(t.dims)) for t in config.output] == [
        (t.name, t.dims) for t in signature.outputs
    ]


@pytest.mark.parametrize("step", list(NETWORK_STEPS))
def test_every_step_is_warmed_up_with_one_image_and_with_the_largest_batch(step: Step) -> None:
    config = model_config.step_config("screw", step, 64, [1])
    inputs = {t.name: (t.data_type, list(t.dims)) for t in config.input}
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, config.max_batch_size]
    for warmup in config.model_warmup:
        assert {n: (i.data_type, list(i.dims)) for n, i in warmup.inputs.items()} == inputs


def test_requests_wait_in_the_first_steps_queue_and_in_no_other() -> None:
    first, *others = (model_config.step_config("screw", step, 64, [1]) for step in NETWORK_STEPS)
    queue = first.dynamic_batching
    assert (queue.priority_levels, queue.default_priority_level) == (2, contract.Priority.BATCH)
    policy = queue.default_queue_policy
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.allow_timeout_override
    assert policy.default_timeout_microseconds > 0  # at 0, a caller's own timeout is ignored
    assert policy.max_queue_size > 0
    assert all(other.dynamic_batching == pb.ModelDynamicBatching() for other in others)


@pytest.mark.parametrize("step", list(NETWORK_STEPS))
def test_a_host_configuration_is_the_default_but_for_where_and_how_it_runs(step: Step) -> None:
    default = model_config.step_config("screw", step, 64, [1, 2])
    configs = host_configs(default, step, cores=4)
    for config in map(read_back, (configs["cuda"], configs["gpu"])):
        assert [group.kind for group in config.instance_group] == [pb.ModelInstanceGroup.KIND_GPU]
        del config.instance_group[:]
        config.instance_group.extend(default.instance_group)
        config.ClearField("optimization")
        assert config == default


@pytest.mark.parametrize(
    ("cores", "instances", "threads"), [(1, 1, "1"), (4, 4, "1"), (20, 8, "2")]
)
def test_on_a_cpu_host_each_core_runs_an_instance_of_the_networks_with_one_thread(
    cores: int, instances: int, threads: str
) -> None:
    for step in NETWORK_STEPS:
        default = model_config.step_config("screw", step, 64, [1, 2])
        config = read_back(host_configs(default, step, cores)["cpu"])
        (group,) = config.instance_group
        assert group.kind == pb.ModelInstanceGroup.KIND_CPU
        assert group.count == (1 if step is Step.RECONSTRUCTION else instances)
        assert config.parameters["intra_op_thread_count"].string_value == threads
        del config.instance_group[:]
        config.instance_group.extend(default.instance_group)
        config.parameters["intra_op_thread_count"].string_value = "0"
        config.dynamic_batching.CopyFrom(default.dynamic_batching)
        config.ClearField("optimization")
        assert config == default


@pytest.mark.parametrize("cores", [1, 2])
def test_on_a_cpu_host_later_steps_go_first_and_several_instances_take_images_one_by_one(
    cores: int,
) -> None:
    cpu = {}
    for step in NETWORK_STEPS:
        default = model_config.step_config("screw", step, 64, [1])
        cpu[step] = read_back(host_configs(default, step, cores)["cpu"])
    noise, segmentation = cpu[Step.NOISE_PREDICTION], cpu[Step.SEGMENTATION]
    assert noise.dynamic_batching == segmentation.dynamic_batching
    assert list(noise.dynamic_batching.preferred_batch_size) == ([1] if cores > 1 else [])
    assert cpu[Step.RECONSTRUCTION].dynamic_batching == pb.ModelDynamicBatching()
    first = pb.ModelOptimizationPolicy.PRIORITY_MAX
    assert [config.optimization.priority == first for config in cpu.values()] == [False, True, True]


def test_the_gpu_configuration_covers_every_batch_size_of_every_input() -> None:
    default = model_config.step_config("screw", Step.SEGMENTATION, 64, [1])
    configs = host_configs(default, Step.SEGMENTATION, cores=4)
    assert not configs["cuda"].HasField("optimization")
    accelerators = configs["gpu"].optimization.execution_accelerators
    (tensorrt,) = accelerators.gpu_execution_accelerator
    assert tensorrt.name == "tensorrt"
    assert tensorrt.parameters["precision_mode"] == "FP16"
    assert tensorrt.parameters["trt_engine_cache_path"].startswith("/var/cache/")
    assert "trt_engine_cache_prefix" not in tensorrt.parameters
    shapes = {bound: tensorrt.parameters[f"trt_profile_{bound}_shapes"] for bound in ("min", "max")}
    assert shapes == {
        "min": "IMAGE:1x64x64x3,reconstruction:1x3x64x64",
        "max": "IMAGE:8x64x64x3,reconstruction:8x3x64x64",
    }


def test_the_ensemble_carries_its_metadata_unchanged(metadata: ReleaseMetadata) -> None:
    config = read_back(ensemble(metadata))
    document = config.parameters[contract.METADATA_PARAMETER].string_value
    assert ReleaseMetadata.from_json(document) == metadata
    assert json.loads(document)["schema_version"] == 1


def test_the_ensemble_pins_every_step_to_an_exact_version(metadata: ReleaseMetadata) -> None:
    versions = {Step.NOISE_PREDICTION: 4, Step.RECONSTRUCTION: 5, Step.SEGMENTATION: 6}
    config = read_back(model_config.ensemble_config(metadata, 7, versions))
    assert [(s.model_name, s.model_version) for s in config.ensemble_scheduling.step] == [
        ("widget__noise_prediction", 4),
        ("widget__reconstruction", 5),
        ("widget__segmentation", 6),
    ]
    assert list(config.version_policy.specific.versions) == [7]


def test_the_ensemble_is_scheduled_as_one_and_its_steps_are_batched(
    metadata: ReleaseMetadata,
) -> None:
    scheduler = "scheduling_choice"  # a oneof: setting one erases the other without a word
    step = model_config.step_config("widget", Step.SEGMENTATION, 32, [1])
    assert ensemble(metadata).WhichOneof(scheduler) == "ensemble_scheduling"
    assert step.WhichOneof(scheduler) == "dynamic_batching"


def test_every_tensor_that_a_step_takes_comes_from_the_ensemble_or_an_earlier_step(
    metadata: ReleaseMetadata,
) -> None:
    config = ensemble(metadata)
    known = {tensor.name for tensor in config.input}
    for step in config.ensemble_scheduling.step:
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert {tensor.name for tensor in config.output} <= known


def test_configurations_open_with_one_comment(metadata: ReleaseMetadata) -> None:
    lines = model_config.render(ensemble(metadata)).splitlines()
    assert [line for line in lines if line.startswith("#")] == lines[:1]


def test_a_file_that_is_no_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text("name: screw")
    with pytest.raises(RepositoryError, match=r"config\.pbtxt: not a Triton model configuration"):
        model_config.read(tmp_path / "config.pbtxt")


def ensemble(metadata: ReleaseMetadata) -> pb.ModelConfig:
    return model_config.ensemble_config(metadata, 1, dict.fromkeys(NETWORK_STEPS, 1))


def read_back(config: pb.ModelConfig) -> pb.ModelConfig:
    return text_format.Parse(model_config.render(config), pb.ModelConfig())
