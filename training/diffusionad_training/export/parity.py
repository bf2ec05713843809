"""Hold exported graphs against torch, on the spot: the same images, the same answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffusionad_client.artifacts.bundle import References
from diffusionad_client.contract import ANOMALY_MAP, SCORE, Step
from diffusionad_training.errors import ExportError
from diffusionad_training.export.runtime import GraphChain

# float32 in another order of summation differs by about 1e-6; a wrong graph by far more.
SCORE_TOLERANCE = 1e-4
MAP_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Parity:
    """Largest differences between ONNX Runtime and torch over the references."""

    score: float
    anomaly_map: float


def check_parity(graphs: Mapping[Step, bytes], references: References) -> Parity:
    """Compare, in one batch. Raises `ExportError` if a difference exceeds its tolerance."""
    tensors = GraphChain(graphs).run(references.images)
    parity = Parity(
        score=float(np.abs(tensors[SCORE][:, 0] - references.scores).max()),
        anomaly_map=float(np.abs(tensors[ANOMALY_MAP] - references.anomaly_maps).max()),
    )
    # Written so that a NaN fails too.
    if not (parity.score <= SCORE_TOLERANCE and parity.anomaly_map <= MAP_TOLERANCE):
        raise ExportError(
            f"the exported graphs differ from the trained model: score by {parity.score:.2e} "
            f"(allowed {SCORE_TOLERANCE}), map by {parity.anomaly_map:.2e} (allowed "
            f"{MAP_TOLERANCE}); nothing was written"
        )
    return parity
