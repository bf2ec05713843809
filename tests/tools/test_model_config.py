"""The written `config.pbtxt` files, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from diffusionad_client import contract
from diffusionad_client.contract import Step
from diffusionad_client.metadata import ReleaseMetadata
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import model_config

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
backend: "onnxruntime"
"""


@pytest.fixture
def metadata(make_bundle: Any) -> ReleaseMetadata:
    found: ReleaseMetadata = make_bundle().metadata
    return found


def test_a_step_configuration_is_written_as_agreed() -> None:
    config = model_config.step_config("screw", Step.SEGMENTATION, 256, [3])
    assert model_config.render(config) == GOLDEN_SEGMENTATION


@pytest.mark.parametrize("step", list(Step))
def test_a_step_configuration_reads_back_as_it_was_written(step: Step, tmp_path: Path) -> None:
    config = model_config.step_config("screw", step, 64, [2, 1])
    (tmp_path / "config.pbtxt").write_text(model_config.render(config))
    assert model_config.read(tmp_path / "config.pbtxt") == config
    assert list(config.version_policy.specific.versions) == [1, 2]


@pytest.mark.parametrize("step", list(Step))
def test_a_step_configuration_names_every_tensor_of_the_contract(step: Step) -> None:
    config = model_config.step_config("screw", step, 64, [1])
    signature = contract.step_signature(step, 64)
    assert [(t.name, tuple(t.dims)) for t in config.input] == [
        (t.name, t.dims) for t in signature.inputs
    ]
    assert [(t.name, tuple(t.dims)) for t in config.output] == [
        (t.name, t.dims) for t in signature.outputs
    ]
    assert set(config.model_warmup[0].inputs) == {t.name for t in signature.inputs}


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
    return model_config.ensemble_config(metadata, 1, dict.fromkeys(Step, 1))


def read_back(config: pb.ModelConfig) -> pb.ModelConfig:
    return text_format.Parse(model_config.render(config), pb.ModelConfig())
