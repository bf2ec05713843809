"""Which module of the model a node of a traced graph came from.

torch's exporter notes that down beside each node. `graphs.serialise` removes it
again; before, it tells a normalisation's multiplication from any other.
"""

from __future__ import annotations

import ast

import onnx

_NOTE = "pkg.torch.onnx.class_hierarchy"

NETWORKS = ("NoiseUNet", "SegmentationUNet")


def modules(node: onnx.NodeProto) -> tuple[str, ...]:
    """Classes of the modules around a node, outermost first, and last torch's own operator.

    For example ("NoisePrediction", "NoiseUNet", ..., "GroupNorm", "aten.group_norm.default").
    """
    for note in node.metadata_props:
        if note.key == _NOTE:
            *classes, operator = ast.literal_eval(note.value)
            return (*(name.rpartition(".")[2] for name in classes), operator)
    return ()


def is_in_network(node: onnx.NodeProto) -> bool:
    """Tell whether a node is part of a network rather than of the equations around it."""
    return any(network in modules(node) for network in NETWORKS)
