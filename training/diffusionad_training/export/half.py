"""fp16: the networks in half precision, for GPUs.

Weights, convolutions and what lies between them are half; float32 stay the
tensors of the contract, the equations around the networks, normalisation
layers, the attention's scores and sums, and the embedding of the step, whose
angles reach into the hundreds.
"""

from __future__ import annotations

import onnx
from onnxruntime.transformers import float16
from onnxruntime.transformers.onnx_model import OnnxModel

from diffusionad_training.export.scopes import is_in_network, modules

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16

_FLOAT_MODULES = ("GroupNorm", "BatchNorm2d")
_FLOAT_OPERATORS = ("aten.scaled_dot_product_attention.default",)
_STEP_EMBEDDING = "NoiseUNet"  # the one computation that the network leaves to no module of its own


def to_half(traced: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a traced graph; its inputs and outputs stay as they are.

    A graph without a network comes back as it is.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(traced)
    kept = [node.name for node in graph.graph.node if not _is_half(node)]
    if len(kept) == len(graph.graph.node):
        return graph
    model = OnnxModel(
        float16.convert_float_to_float16(
            graph, keep_io_types=True, op_block_list=[], node_block_list=kept
        )
    )
    _remove_round_trips(model)
    model.topological_sort(is_deterministic=True)
    converted: onnx.ModelProto = model.model
    return converted


def _remove_round_trips(model: OnnxModel) -> None:
    """Drop casts to half and back, which the converter puts between nodes that stay float32.

    They would round what is to be exact.
    """
    outputs = set(model.get_graphs_output_names())
    halved = {node.output[0]: node for node in model.nodes() if _casts_to(node, FLOAT16)}
    for node in model.nodes():
        if not (_casts_to(node, FLOAT) and node.input[0] in halved):
            continue
        exact, returned = halved[node.input[0]].input[0], node.output[0]
        model.remove_node(node)
        if returned in outputs:
            model.replace_output_of_all_nodes(exact, returned)
            model.replace_input_of_all_nodes(exact, returned)
        else:
            model.replace_input_of_all_nodes(returned, exact)
    model.prune_graph()


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def _is_half(node: onnx.NodeProto) -> bool:
    if not is_in_network(node):
        return False
    if node.op_type == "Conv":  # also where a BatchNorm2d was folded into it
        return True
    *_, module, operator = modules(node)
    return not (
        module in _FLOAT_MODULES or operator in _FLOAT_OPERATORS or module == _STEP_EMBEDDING
    )
