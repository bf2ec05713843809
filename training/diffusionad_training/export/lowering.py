"""Compute a category's networks in a lower precision, and see what that brings here."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from diffusionad_client.artifacts.agreement import describe, is_within_limits
from diffusionad_client.artifacts.metadata import Agreement, Precision
from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_training.errors import ExportError
from diffusionad_training.export.graphs import serialise
from diffusionad_training.export.half import to_half
from diffusionad_training.export.int8 import to_int8
from diffusionad_training.export.runtime import GraphChain

_PAIRS = 15  # of runs that are timed
_ENOUGH_PAIRS = 3
_TIMING_S = 30.0  # after that, enough pairs are enough: a large model takes minutes an image


def lower(
    traced: Mapping[Step, onnx.ModelProto], precision: Precision, images: NDArray[np.uint8]
) -> dict[Step, bytes]:
    """Turn traced float32 graphs into those of a lower precision.

    int8 takes the ranges of its tensors from `images` (N, S, S, 3).
    """
    lowered = dict(traced)
    if precision is Precision.FP16:
        lowered = {step: to_half(graph) for step, graph in traced.items()}
    elif precision is Precision.INT8:
        lowered[Step.NOISE_PREDICTION] = to_int8(traced[Step.NOISE_PREDICTION], images)
    return {step: serialise(lowered[step], step) for step in NETWORK_STEPS}


def check_agreement(precision: Precision, agreement: Agreement) -> None:
    """Raise `ExportError` if a precision judges too differently to be served."""
    if not is_within_limits(agreement):
        raise ExportError(
            f"{precision} does not agree with fp32 on {agreement.images} images: "
            f"{describe(agreement)}; nothing was written. Export with --precision fp32, or train "
            "longer, or hold more good images out: the further apart a model's good and anomalous "
            "scores are, the more rounding it tolerates"
        )


def speedup(fp32: GraphChain, lowered: GraphChain, image: NDArray[np.uint8]) -> float:
    """How many times as fast as float32 the lower precision scores one image here.

    The median over pairs of runs, one right after the other, so that whatever
    else the machine does slows both.
    """
    fp32.seconds(image), lowered.seconds(image)  # the first run allocates
    ratios: list[float] = []
    started = time.monotonic()
    while len(ratios) < _PAIRS:
        ratios.append(fp32.seconds(image) / lowered.seconds(image))
        if len(ratios) >= _ENOUGH_PAIRS and time.monotonic() - started > _TIMING_S:
            break
    return round(float(np.median(ratios)), 2)
