"""How far two samples of scores, or two rates, lie apart, and whether chance would do.

A few lines of numpy each: a statistics package would be the client's largest
dependency. The tests hold them to scipy's.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MAX_BINS = 10  # as the population stability index is used everywhere
IMAGES_PER_BIN = 10  # at least, of the smaller sample
_MIN_BINS = 3

Scores = NDArray[np.float64]


def bin_edges(baseline: Scores, images: int) -> Scores:
    """Give the inner edges of bins that hold equal shares of the baseline, rising.

    Fewer bins where the smaller sample, of `images`, could not fill ten. A score that fills
    several of them by itself gets a bin of its own. A bin holds its lower edge.
    """
    bins = min(max(min(len(baseline), images) // IMAGES_PER_BIN, _MIN_BINS), MAX_BINS)
    quantiles: Scores = np.quantile(baseline, np.arange(1, bins) / bins)
    edges: Scores = np.unique(quantiles)
    if len(edges) < bins - 1:
        edges = np.union1d(edges, np.nextafter(edges, np.inf))
    return edges


def psi(baseline: Scores, current: Scores, edges: Scores) -> float:
    """Give the population stability index: 0 for equal shares in all bins.

        PSI = sum_i (q_i - p_i) ln(q_i / p_i)

    p, q are the shares of the baseline and of the current sample in bin i. Half an image is
    added to each bin, so that an empty one counts for much, but not for infinitely much.
    """
    p, q = _shares(baseline, edges), _shares(current, edges)
    return float(((q - p) * np.log(q / p)).sum())


def psi_of_chance(edges: Scores, baseline: int, current: int, alpha: float) -> float:
    """Give the index that two samples of one population exceed with probability alpha.

    For n and m images, PSI nm / (n + m) is distributed as chi squared with a degree of
    freedom less than there are bins: Yurdakul (2018), Statistical Properties of Population
    Stability Index.
    """
    return chi_squared_quantile(1 - alpha, len(edges)) * (1 / baseline + 1 / current)


def chi_squared_quantile(probability: float, freedom: int) -> float:
    """Give the value that chi squared stays below: Wilson and Hilferty (1931).

    Within 1 % down to one in a hundred; at one in ten thousand up to 5 % too high, which alarms
    later, not sooner.
    """
    z, part = NormalDist().inv_cdf(probability), 2 / (9 * freedom)
    return float(freedom * (1 - part + z * math.sqrt(part)) ** 3)


def kolmogorov_smirnov(first: Scores, second: Scores) -> tuple[float, float]:
    """Give the largest distance of two distribution functions, and how likely chance does it.

    The probability is Kolmogorov's series at (sqrt(N) + 0.12 + 0.11 / sqrt(N)) D, with
    N = nm / (n + m): Stephens (1970).
    """
    first, second = np.sort(first), np.sort(second)
    every = np.concatenate([first, second])
    below = np.searchsorted(first, every, side="right") / len(first)
    distance = float(
        np.abs(below - np.searchsorted(second, every, side="right") / len(second)).max()
    )
    root = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    at = (root + 0.12 + 0.11 / root) * distance
    if at < 0.2:  # the series converges slowly there, to 1
        return distance, 1.0
    terms = np.arange(1, 101)
    series = 2 * float(((-1.0) ** (terms - 1) * np.exp(-2 * terms**2 * at**2)).sum())
    return distance, min(max(series, 0.0), 1.0)


def rate_interval(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give the interval that the true rate behind `hits` of `of` lies in: Wilson (1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, scale = hits / of, 1 + z * z / of
    centre = rate + z * z / (2 * of)
    half = z * math.sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)


def same_rate(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """Give the probability that two rates differ so much, or more, by chance.

    Fisher's exact test, two-sided: right for few hits too.
    """
    all_hits, everything = hits + other_hits, of + other_of
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, everything + 1)))])

    def ways(total: int, chosen: NDArray[np.int64]) -> Scores:
        given: Scores = factorial[total] - factorial[chosen] - factorial[total - chosen]
        return given

    possible = np.arange(max(0, all_hits - other_of), min(of, all_hits) + 1)
    log = ways(of, possible) + ways(other_of, all_hits - possible)
    weights = np.exp(log - log.max())
    observed = weights[hits - possible[0]]
    return float(weights[weights <= observed * (1 + 1e-7)].sum() / weights.sum())


def _shares(scores: Scores, edges: Scores) -> Scores:
    bins = len(edges) + 1
    counts = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=bins)
    shares: Scores = (counts + 0.5) / (len(scores) + 0.5 * bins)
    return shares
