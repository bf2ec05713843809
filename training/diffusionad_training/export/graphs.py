"""The three steps of the model as ONNX graphs, clean of everything but the computation.

Graphs stay within opset 20 and IR 10, which ONNX Runtime 1.19.2 loads.
Exporting a model twice gives identical bytes.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from diffusionad_client.contract import Step, step_signature
from diffusionad_training.errors import ExportError
from diffusionad_training.export.lean import lean
from diffusionad_training.export.translations import TRANSLATIONS
from diffusionad_training.method.model import (
    DiffusionAD,
    NoisePrediction,
    Reconstruction,
    Segmentation,
)
from diffusionad_training.networks.pretrained import EFFICIENTNET_LITE0

OPSET = 20
IR_VERSION = 10
PRODUCER = "diffusionad"

STEP_MODULES: dict[Step, type[NoisePrediction | Reconstruction | Segmentation]] = {
    Step.NOISE_PREDICTION: NoisePrediction,
    Step.RECONSTRUCTION: Reconstruction,
    Step.SEGMENTATION: Segmentation,
}
_TORCH_DTYPES = {"UINT8": torch.uint8, "FP32": torch.float32}


def export_step(model: DiffusionAD, step: Step) -> bytes:
    """Export one step of a model in evaluation mode as a serialised ONNX graph."""
    return serialise(trace_step(model, step), step)


def trace_step(model: DiffusionAD, step: Step) -> onnx.ModelProto:
    """Turn one step into a graph whose nodes still say of which module they are; see `scopes`."""
    signature = step_signature(step, model.config.size)
    module = STEP_MODULES[step](lean(model)).eval()
    # Two images, so that the exporter does not take the batch for a constant one.
    arguments = tuple(
        torch.zeros(2, *spec.dims, dtype=_TORCH_DTYPES[spec.dtype]) for spec in signature.inputs
    )
    graph = _trace(
        module,
        arguments,
        [spec.name for spec in signature.inputs],
        [spec.name for spec in signature.outputs],
    )
    graph.doc_string = notice(model) if step is Step.SEGMENTATION else ""
    return graph


def notice(model: DiffusionAD) -> str:
    """What has to be said of weights in a model's graphs that others made; "" without any.

    It stands in the graph itself, so that it goes wherever that goes.
    """
    return "" if model.features is None else EFFICIENTNET_LITE0.notice


def serialise(traced: onnx.ModelProto, step: Step) -> bytes:
    """Clean a graph of what is no computation, check it, and give its bytes."""
    graph = onnx.ModelProto()
    graph.CopyFrom(traced)
    _strip(graph)
    graph.ir_version = IR_VERSION
    graph.producer_name = PRODUCER
    graph.producer_version = ""
    _name_by_content(graph)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportError(f"{step.value}: the exported graph is not valid: {exc}") from exc
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def _trace(
    module: nn.Module, arguments: tuple[Tensor, ...], inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=1024)
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            arguments,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in arguments),
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # only the path-writing form returns None
    return program.model_proto


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's notes on its own internals from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_by_content(graph: onnx.ModelProto) -> None:
    """Give a graph a name that no other graph has.

    ONNX Runtime finds a TensorRT engine that it built before by the names in
    the graph and never looks at the weights: under one name, a new release
    would be served with the engine of an old one.
    """
    content = graph.SerializeToString(deterministic=True)
    graph.graph.name = f"{PRODUCER}_{hashlib.sha256(content).hexdigest()[:16]}"


def _strip(graph: onnx.ModelProto) -> None:
    """Remove what the exporter notes down beside the computation: stack traces, with paths."""
    del graph.metadata_props[:]
    _strip_graph(graph.graph)
    for function in graph.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        _strip_nodes(function.node)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.name = PRODUCER
    graph.doc_string = ""
    del graph.metadata_props[:]
    # Shapes of intermediates are inferred again by every runtime.
    del graph.value_info[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: list[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip_graph(attribute.g)
