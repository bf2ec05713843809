"""The false-reject rate that is seen against the one asked for, by way to set the threshold.

    python -m diffusionad_training.benchmarks.thresholds
    python -m diffusionad_training.benchmarks.thresholds screw.json bottle.json

Without files the scores are drawn from distributions of several shapes, on which
the true rate of any threshold is known. A file is what `evaluate --output` wrote:
its good test images are divided at random, again and again, into some that set
the threshold and the others that show the rate.

Ways:
    quantile    just above the scores that may pass: what was done at first
    served      `threshold_for`, as releases are calibrated
    augmented   the quantile of four augmentations of each held-out image
    folds       the quantile of all good images, each scored by a model trained on the
                other four fifths: six and a half times the images, five more trainings
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from diffusionad_client.artifacts.calibration import threshold_for
from diffusionad_client.tables import print_table
from diffusionad_training.data.layout import GOOD
from diffusionad_training.errors import DataError

COUNTS = (10, 20, 30, 50, 100, 200)  # good images that set the threshold
RATES = (0.01, 0.05)
TRUE_SCORES = 20_000  # drawn to know the true rate
FOLDS = 5
HELD_OUT = 0.15  # of the good images: `train`'s default
AUGMENTATIONS = 4
OWN_SPREAD = 0.5  # of an image's augmentations about its score, in spreads of the scores
MODEL_SPREAD = 0.3  # of the folds' models about each other, in the same unit

Scores = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Scores]

SHAPES: dict[str, Draw] = {  # logits of good scores, of about unit spread
    "normal": lambda rng, size: rng.normal(size=size),
    "logistic": lambda rng, size: rng.logistic(scale=0.55, size=size),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "gumbel": lambda rng, size: rng.gumbel(scale=0.78, size=size),
    "student t, 4": lambda rng, size: rng.standard_t(4, size=size) / math.sqrt(2),
}


def quantile(scores: Scores, rate: float) -> float:
    """Just above what at most `rate` of the scores reach."""
    descending = np.sort(scores)[::-1]
    return float(np.nextafter(descending[math.floor(rate * scores.size)], np.inf))


def rates_drawn(
    draw: Draw, count: int, rate: float, repeats: int, rng: np.random.Generator
) -> dict[str, Scores]:
    """Give the true rates of each way's thresholds, set `repeats` times by `count` images."""
    true = _scores(draw(rng, (TRUE_SCORES,)))
    seen: dict[str, list[float]] = {way: [] for way in ("quantile", "served", "augmented", "folds")}
    for _ in range(repeats):
        logits = draw(rng, (count,))
        own = rng.normal(scale=OWN_SPREAD, size=(AUGMENTATIONS, count))
        fold = rng.normal(scale=MODEL_SPREAD, size=FOLDS)
        total = round(count / HELD_OUT)
        of_folds = draw(rng, (total,)) + fold[np.arange(total) % FOLDS]
        for way, threshold in {
            "quantile": quantile(_scores(logits), rate),
            "served": threshold_for(_scores(logits), rate),
            "augmented": quantile(_scores((logits + own).ravel()), rate),
            "folds": quantile(_scores(of_folds), rate),
        }.items():
            seen[way].append(float((true >= threshold).mean()))
    return {way: np.asarray(rates) for way, rates in seen.items()}


def rates_resampled(
    scores: Scores, count: int, rate: float, repeats: int, rng: np.random.Generator
) -> dict[str, Scores]:
    """Give the rates seen on the scores that did not set the threshold."""
    seen: dict[str, list[float]] = {"quantile": [], "served": []}
    for _ in range(repeats):
        order = rng.permutation(scores.size)
        chosen, others = scores[order[:count]], scores[order[count:]]
        for way, find in (("quantile", quantile), ("served", threshold_for)):
            seen[way].append(float((others >= find(chosen, rate)).mean()))
    return {way: np.asarray(rates) for way, rates in seen.items()}


def read_good_scores(path: Path) -> Scores:
    """Take the scores of the good images from an evaluation's JSON. Raises `DataError`."""
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        scores = np.asarray([one["score"] for one in images if one["defect"] == GOOD], float)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataError(
            f"{path}: not an evaluation by `diffusionad evaluate --output`: {exc!r}"
        ) from exc
    if scores.size < 2 * COUNTS[0]:
        raise DataError(
            f"{path}: {scores.size} good test images; half of them set a threshold and half show "
            f"the rate, so {2 * COUNTS[0]} are needed"
        )
    return scores


def table(
    sources: Sequence[Path], repeats: int, seed: int
) -> Iterator[tuple[str, float, int, dict[str, Scores]]]:
    """Measure every source at every rate and number of images."""
    rng = np.random.default_rng(seed)
    for rate in RATES:
        for count in COUNTS:
            if not sources:
                for shape, draw in SHAPES.items():
                    yield shape, rate, count, rates_drawn(draw, count, rate, repeats, rng)
            for path in sources:
                scores = read_good_scores(path)
                if 2 * count <= scores.size:
                    seen = rates_resampled(scores, count, rate, repeats, rng)
                    yield path.stem, rate, count, seen


def _scores(logits: Scores) -> Scores:
    """Logits as scores in (0, 1), of good parts: most of them low."""
    scores: Scores = 1 / (1 + np.exp(3 - logits))
    return scores


@click.command()
@click.argument("evaluations", nargs=-1, type=click.Path(path_type=Path))
@click.option("--repeats", default=400, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def main(evaluations: tuple[Path, ...], repeats: int, seed: int) -> None:
    """Print the mean rate seen, and the one that a tenth of calibrations exceed, in percent."""
    rows = []
    for source, rate, count, seen in table(evaluations, repeats, seed):
        cells = (
            f"{100 * rates.mean():.1f} ({100 * np.quantile(rates, 0.9):.1f})"
            for rates in seen.values()
        )
        rows.append((source, f"{rate:.0%}", str(count), *cells))
        ways = tuple(seen)
    print_table(("scores", "asked", "images", *ways), rows, numbers=len(ways) + 2)


if __name__ == "__main__":
    main()
