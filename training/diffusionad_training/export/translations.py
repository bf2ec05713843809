"""How torch's operators are written in ONNX, where the exporter's own way is slower to run.

The exporter keeps every size open; here all but the batch's is known, so that nothing asks
for shapes when an image is waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from onnxscript import ir
from onnxscript.onnx_opset import opset20

op: Any = opset20  # its own types know tensors only, not the values of a graph in the making


def group_norm(
    input: ir.Value,
    num_groups: int,
    weight: ir.Value,
    bias: ir.Value,
    eps: float = 1e-05,
    cudnn_enabled: bool = True,
) -> Any:
    """(N, C, H, W) -> the same. The gain of each channel is one pass, as a BatchNormalization."""
    assert input.shape is not None
    channels, *sides = (cast(int, side) for side in input.shape[1:])
    grouped = op.Reshape(input, op.Constant(value_ints=[0, num_groups, -1]))
    ones, zeros = _floats(1.0, num_groups), _floats(0.0, num_groups)
    normal = op.InstanceNormalization(grouped, ones, zeros, epsilon=eps)
    normal = op.Reshape(normal, op.Constant(value_ints=[0, channels, *sides]))
    mean, variance = _floats(0.0, channels), _floats(1.0, channels)
    return op.BatchNormalization(normal, weight, bias, mean, variance, epsilon=0.0)


def scaled_dot_product_attention(
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Each (N, heads, L, d) -> the same; without a mask."""
    assert (attn_mask, is_causal, enable_gqa) == (None, False, False)
    assert query.shape is not None
    scale = cast(int, query.shape[-1]) ** -0.5 if scale is None else scale
    products = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(op.Mul(products, op.Constant(value_float=scale)), axis=-1), value)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.group_norm.default: group_norm,
    torch.ops.aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
}


def _floats(value: float, count: int) -> Any:
    return op.Constant(value_floats=[value] * count)
