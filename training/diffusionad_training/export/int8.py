"""int8: the networks' convolutions in 8 bits, for CPUs.

Static quantisation in the QDQ form, which ONNX Runtime turns into integer
kernels where it has them. What is not a convolution stays float32: norms,
softmax and the attention's products, the step's embedding, and all equations;
so do the first and the last convolution of each network, which cost little and
meet the raw pixels.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from diffusionad_training.export.runtime import Tensors


def to_int8(traced: onnx.ModelProto, inputs: Tensors) -> onnx.ModelProto:
    """Quantise a traced graph; its inputs and outputs stay as they are.

    The ranges of its tensors are those met on `inputs`, which may hold more
    than the graph's own. A graph without a network comes back as it is.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(traced)
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    if not convolutions:
        return graph
    names = [value.name for value in graph.graph.input]
    with tempfile.TemporaryDirectory() as folder, _quiet_quantiser():
        path = Path(folder, "int8.onnx")
        quantize_static(
            graph,
            path,
            _OneByOne({name: inputs[name] for name in names}),
            # A ReLU is a bound of the range of the convolution before it.
            op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # 7 bits of weight: without VNNI, AVX2 adds pairs of 8-bit products in 16
            # bits, which overflow. With them, scores also differ between machines.
            reduce_range=True,
        )
        return onnx.load(path)


class _OneByOne(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Hands the quantiser one image at a time."""

    def __init__(self, inputs: Tensors) -> None:
        count = len(next(iter(inputs.values())))
        self._rest: Iterator[Tensors] = (
            {name: tensor[index : index + 1] for name, tensor in inputs.items()}
            for index in range(count)
        )

    def get_next(self) -> Tensors | None:
        """Give the inputs of the next image, None after the last."""
        return next(self._rest, None)


@contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """Keep the quantiser's advice on how to call it from the user; it logs to the root logger."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
