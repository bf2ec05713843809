"""int8: the diffusion network's convolutions in 8 bits, for CPUs.

Static quantisation in the QDQ form, which ONNX Runtime turns into integer
kernels where it has them. What is not a convolution stays float32: norms,
softmax and the attention's products, the step's embedding, and all equations;
so do the first and the last convolution, which meet raw pixels. The
segmentation network stays whole: it tells small differences apart, and most of
what rounding moves a score by came from there (docs/precision.md).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from diffusionad_client.contract import IMAGE
from diffusionad_training.export.runtime import Tensors


def to_int8(traced: onnx.ModelProto, images: NDArray[np.uint8]) -> onnx.ModelProto:
    """Quantise the traced graph of noise prediction; inputs and outputs stay as they are.

    The ranges of its tensors are those met on `images` (N, S, S, 3).
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(traced)
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    with tempfile.TemporaryDirectory() as folder, _quiet_quantiser():
        path = Path(folder, "int8.onnx")
        quantize_static(
            graph,
            path,
            _OneByOne(images),
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # 7 bits of weight: without VNNI, AVX2 adds pairs of products in 16 bits, which
            # 8 bits overflow. Scores would be wrong there, and differ between machines.
            reduce_range=True,
        )
        return onnx.load(path)


class _OneByOne(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Hands the quantiser one image at a time."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._rest = iter([{IMAGE: image[np.newaxis]} for image in images])

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
