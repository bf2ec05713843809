"""The step that says what an answer was judged by: a tiny ONNX graph of a release's thresholds.

    SCORE       = score
    VERDICT     = OK if score < accept, NG if score >= reject, REVIEW between and for NaN
    THRESHOLDS  = accept, reject, pixel
    RELEASE     = the release's name

The same metadata give the same bytes on every machine, so that a graph can be
proved by writing it again. That holds for as long as repositories do: another
graph needs another contract, whose step has another ending in its name.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata, Verdict
from diffusionad_client.contract import Step, TensorSpec

_OPSET, _IR = 18, 9  # ONNX Runtime 1.19, the oldest that serves, takes 20 and 10
_TYPES = {"FP32": TensorProto.FLOAT, "BYTES": TensorProto.STRING}


def judgement(metadata: ReleaseMetadata) -> bytes:
    """Write the graph that judges the scores of a release.

    It compares in float64, as `Thresholds.verdict` does: both give one verdict
    for every score.
    """
    limits = metadata.thresholds
    signature = contract.step_signature(Step.JUDGEMENT, metadata.size, metadata.contract)
    node = helper.make_node
    nodes = [
        node("Identity", [contract.UNJUDGED], [contract.SCORE]),
        node("Cast", [contract.UNJUDGED], ["exact"], to=TensorProto.DOUBLE),
        node("Less", ["exact", "accept"], ["below"]),
        node("Not", ["below"], ["suspect"]),  # so is what is not a number
        node("GreaterOrEqual", ["exact", "reject"], ["defective"]),
        node("Cast", ["suspect"], ["one"], to=TensorProto.INT64),
        node("Cast", ["defective"], ["another"], to=TensorProto.INT64),
        node("Add", ["one", "another"], ["severity"]),
        node("Gather", ["verdicts", "severity"], [contract.VERDICT]),
        # A row of each constant for every score.
        node("Sub", ["severity", "severity"], ["first"]),
        node("Gather", ["release", "first"], [contract.RELEASE]),
        node("Squeeze", ["first", "last_axis"], ["rows"]),
        node("Gather", ["thresholds", "rows"], [contract.THRESHOLDS]),
    ]
    tensor = helper.make_tensor
    told = [limits.accept, limits.reject, metadata.pixel_threshold]
    constants = [
        tensor("accept", TensorProto.DOUBLE, [], [limits.accept]),
        tensor("reject", TensorProto.DOUBLE, [], [limits.reject]),
        _words("verdicts", [Verdict.OK.value, Verdict.REVIEW.value, Verdict.NG.value]),
        _words("release", [metadata.release]),
        tensor("thresholds", TensorProto.FLOAT, [1, len(told)], told),
        tensor("last_axis", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        nodes,
        Step.JUDGEMENT.value,
        [_declare(spec) for spec in signature.inputs],
        [_declare(spec) for spec in signature.outputs],
        constants,
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], producer_name="diffusionad")
    model.ir_version = _IR
    onnx.checker.check_model(model, full_check=True)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _words(name: str, words: list[str]) -> TensorProto:
    encoded = [word.encode() for word in words]
    return TensorProto(
        name=name, data_type=TensorProto.STRING, dims=[len(words)], string_data=encoded
    )


def _declare(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _TYPES[spec.dtype], ["batch", *spec.dims])
