"""A category whose graphs answer at once, on a real Triton: what is measured then is all else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import (
    Calibration,
    ReleaseMetadata,
    Thresholds,
    TrainingSummary,
)
from diffusionad_client.contract import NETWORK_STEPS, NEWEST
from diffusionad_tools.release import decoding, model_config
from diffusionad_tools.release.candidate import Candidate, lay_out_ensembles, lay_out_judgement
from diffusionad_tools.release.repository import CONFIG_FILE, GRAPH_FILE

CATEGORY = "instant"
_SIZE = 256
_OPSET, _IR_VERSION = 17, 9
_ELEMENTS = {"FP32": (TensorProto.FLOAT, np.float32), "UINT8": (TensorProto.UINT8, np.uint8)}
_ANSWER = 0.25  # of the tensors that are in [0, 1], the score among them


def write_repository(folder: Path, *, score: float = _ANSWER) -> Path:
    """Write a model repository with the category and its encoded form; returns it.

    Every image gets `score`, and a map and a reconstruction of one value.
    """
    metadata = _metadata()
    candidate = Candidate(folder, metadata, 1)
    for step in NETWORK_STEPS:
        model = candidate.model(step)
        (model / "1").mkdir(parents=True)
        config = model_config.step_config(CATEGORY, step, _SIZE, [1], NEWEST)
        (model / CONFIG_FILE).write_text(model_config.render(config), encoding="utf-8")
        graph = _constant_graph(contract.step_signature(step, _SIZE, NEWEST), score)
        (model / "1" / GRAPH_FILE).write_bytes(graph)
    lay_out_judgement(candidate, folder)
    decoder = decoding.lay_out(folder, metadata, folder)
    pins = dict.fromkeys(contract.CONTRACTS[NEWEST], 1)
    lay_out_ensembles(model_config.ensemble_configs(metadata, 1, pins, decoder), 1, folder)
    return folder


def _constant_graph(signature: contract.Signature, score: float) -> bytes:
    """Give a graph whose outputs have one value each, whatever its inputs hold."""
    nodes = [
        helper.make_node("Shape", [signature.inputs[0].name], ["all"]),
        helper.make_node("Gather", ["all", "first"], ["count"], axis=0),
    ]
    constants = {"first": np.array([0])}
    for output in signature.outputs:
        dims, kind = f"dims of {output.name}", _ELEMENTS[output.dtype][1]
        constants[dims] = np.array(output.dims)
        constants[f"value of {output.name}"] = np.array(score if kind is np.float32 else 128, kind)
        shape = f"shape of {output.name}"
        nodes += [
            helper.make_node("Concat", ["count", dims], [shape], axis=0),
            helper.make_node("Expand", [f"value of {output.name}", shape], [output.name]),
        ]
    graph = helper.make_graph(
        nodes,
        "instant",
        [_declare(spec) for spec in signature.inputs],
        [_declare(spec) for spec in signature.outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _declare(spec: contract.TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _ELEMENTS[spec.dtype][0], ["N", *spec.dims])


def _metadata() -> ReleaseMetadata:
    return ReleaseMetadata(
        category=CATEGORY,
        release=hashlib.sha256(CATEGORY.encode()).hexdigest(),
        preset="edge",
        size=_SIZE,
        contract=NEWEST,
        thresholds=Thresholds(accept=0.5, reject=0.75),
        pixel_threshold=0.5,
        calibration=Calibration(good_images=1, false_reject_rate=0.01, review_rate=0.05),
        training=TrainingSummary(images=1, steps=1, seed=0, data_digest="0" * 64),
        digests={step.value: "0" * 64 for step in NETWORK_STEPS},
    )
