"""Exported graphs in ONNX Runtime on the CPU, chained as the ensemble chains them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from diffusionad_client.contract import ANOMALY_MAP, IMAGE, NETWORK_STEPS, SCORE, Step
from diffusionad_training.evaluation.scorers import Scored

Tensors = dict[str, NDArray[Any]]

_ERRORS_ONLY = 3  # of onnxruntime's severities; its warnings on optimisations are not the user's


class GraphChain:
    """The three graphs of a category, loaded."""

    def __init__(self, graphs: Mapping[Step, bytes]) -> None:
        self._sessions = [_open(graphs[step]) for step in NETWORK_STEPS]

    def run(self, images: NDArray[np.uint8]) -> Tensors:
        """Put images (N, S, S, 3) through as one batch; give every tensor, by name."""
        tensors: Tensors = {IMAGE: images}
        for session in self._sessions:
            feeds = {spec.name: tensors[spec.name] for spec in session.get_inputs()}
            names = [spec.name for spec in session.get_outputs()]
            tensors |= zip(names, session.run(names, feeds), strict=True)
        return tensors

    def score(self, images: NDArray[np.uint8]) -> Iterator[Scored]:
        """Score images (N, S, S, 3) one by one, as a line asks."""
        for image in images:
            tensors = self.run(image[np.newaxis])
            yield Scored(float(tensors[SCORE].item()), tensors[ANOMALY_MAP][0])

    def seconds(self, image: NDArray[np.uint8]) -> float:
        """Time one image (S, S, 3)."""
        started = time.perf_counter()
        self.run(image[np.newaxis])
        return time.perf_counter() - started


def _open(graph: bytes) -> onnxruntime.InferenceSession:
    """Load a graph for the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # As served: threads that wait in a loop would take the cores from the next session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
