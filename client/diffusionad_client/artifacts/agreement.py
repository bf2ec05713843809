"""Hold a lower precision against float32 on real images: the same order, the same verdicts.

`export` asks ONNX Runtime, `release add` a server; both measure and judge with
these functions. A figure that the images cannot define is not a number, which
no limit lets pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusionad_client.artifacts import rank_statistics
from diffusionad_client.artifacts.bundle import AgreementSet
from diffusionad_client.artifacts.metadata import Agreement, Thresholds

SPEARMAN_AT_LEAST = 0.99
VERDICT_FLIPS_AT_MOST = 0.01
AUROC_LOSS_AT_MOST = 0.005


def measure(expected: AgreementSet, scores: Sequence[float], thresholds: Thresholds) -> Agreement:
    """Compare a lower precision's scores, judged by its own thresholds, with float32's."""
    flips = [
        thresholds.verdict(score) is not expected.thresholds.verdict(float(known))
        for score, known in zip(scores, expected.scores, strict=True)
    ]
    return Agreement(
        images=len(expected.images),
        anomalous=int(expected.anomalous.sum()),
        spearman=spearman(expected.scores, scores),
        verdict_flips=sum(flips) / len(flips),
        auroc_loss=auroc(expected.scores, expected.anomalous) - auroc(scores, expected.anomalous),
    )


def describe(agreement: Agreement) -> str:
    """Say each figure with its limit."""
    return (
        f"Spearman correlation of scores {agreement.spearman:.4f} (at least "
        f"{SPEARMAN_AT_LEAST:g}), verdict flips {agreement.verdict_flips:.1%} (at most "
        f"{VERDICT_FLIPS_AT_MOST:.0%}), AUROC loss {100 * agreement.auroc_loss:.2f} points "
        f"(at most {100 * AUROC_LOSS_AT_MOST:g})"
    )


def is_within_limits(agreement: Agreement) -> bool:
    """Tell whether a release of that precision may be served. What is not a number never may."""
    return (
        agreement.spearman >= SPEARMAN_AT_LEAST
        and agreement.verdict_flips <= VERDICT_FLIPS_AT_MOST
        and agreement.auroc_loss <= AUROC_LOSS_AT_MOST
    )


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Correlate the ranks of two series. Not a number if one of them is constant."""
    found = rank_statistics.spearman(first, second)
    return float("nan") if found is None else found


def auroc(scores: ArrayLike, anomalous: NDArray[np.bool_]) -> float:
    """Chance that an anomalous image scores higher than a good one; ties count half.

    Not a number if there is one class only.
    """
    values = np.asarray(scores)
    found = rank_statistics.auroc(values[~anomalous], values[anomalous])
    return float("nan") if found is None else found
