"""How two lists of scores relate, and how well one tells good from bad.

Sums over ranks, a few lines of numpy: a statistics package would be the
client's largest dependency.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Rank the values from 1 on; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return mean


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Correlate the ranks of two lists, in [-1, 1]; None where there is nothing to order."""
    a, b = ranks(first), ranks(second)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def auroc(good: ArrayLike, bad: ArrayLike) -> float | None:
    """Give the chance that a bad part scores above a good one, ties half; None without either."""
    good, bad = np.asarray(good), np.asarray(bad)
    if not (len(good) and len(bad)):
        return None
    wins = ranks(np.concatenate([good, bad]))[len(good) :].sum() - len(bad) * (len(bad) + 1) / 2
    return float(wins / (len(good) * len(bad)))
