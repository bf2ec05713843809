"""Count verdicts by category, where Triton's other counts stand: on its metrics port.

    diffusionad_verdicts_total{category="screw",verdict="NG",version="3",process="4711"} 12

Only a model that answers with a verdict counts any. Not counted is what no part
was judged by: warmup, and an image that a client sends to see whether we live.

Runs inside Triton's stub process: it imports nothing of ours but its neighbours.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from ort_signature import Json

NAME = "diffusionad_verdicts_total"
VERDICT = "VERDICT"  # the output, as the contract names it
VERDICTS = ("OK", "REVIEW", "NG")
NOT_A_PART = "diffusionad-probe"  # how the ids of such requests begin, see `contract.PROBE_ID`


class VerdictCounts:
    """The counters of one instance of a model.

    Each process has its own, told apart by `process`: Triton (2.51) frees a counter when
    one model that has it goes, though another, the same model loaded anew perhaps, still
    counts with it.
    """

    def __init__(self, config: Json, version: str) -> None:
        self._warmups = sum(
            max(1, int(warmup.get("count", 0))) for warmup in config.get("model_warmup", [])
        )
        # One that is not kept takes its counters with it.
        self._family = pb_utils.MetricFamily(
            name=NAME,
            description="Number of verdicts by category, without probes and warmup",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        category = config["name"].partition("__")[0]
        labels = {"category": category, "version": version, "process": str(os.getpid())}
        self._counters = {
            verdict: self._family.Metric(labels={**labels, "verdict": verdict})
            for verdict in VERDICTS  # all at once: a rate needs to have seen the 0
        }

    @staticmethod
    def of(config: Json, version: str) -> VerdictCounts | None:
        """Count for a model that gives verdicts; None for any other."""
        outputs = {tensor["name"] for tensor in config["output"]}
        return VerdictCounts(config, version) if VERDICT in outputs else None

    def count(self, requests: list[Any], answers: list[dict[str, Any]]) -> None:
        """Count what requests that came together were answered.

        Triton runs each warmup once, before all else, and asks through an
        ensemble for every output. Who asks a step itself may leave the verdict out.
        """
        if self._warmups > 0:
            self._warmups -= 1
            return
        found: Counter[str] = Counter()
        for request, answer in zip(requests, answers, strict=True):
            if VERDICT in answer and not request.request_id().startswith(NOT_A_PART):
                found.update(_words(answer[VERDICT]))
        for verdict, number in found.items():
            if verdict in self._counters:
                self._counters[verdict].increment(number)


def _words(array: np.ndarray[Any, np.dtype[Any]]) -> list[str]:
    return [w.decode() if isinstance(w, bytes) else str(w) for w in array.ravel().tolist()]
