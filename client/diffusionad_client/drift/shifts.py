"""How far the scores of a run have moved from an earlier run's: in all, by group, over time.

Small samples differ by chance alone. So a shift counts as drift only where it is
both larger than the limit and larger than chance would do; and as stable only
where chance alone could not have reached the limit. All else is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.drift import statistics
from diffusionad_client.drift.sample import ScoreSample

LIMIT = 0.25  # of the index: above it, by the usual rule, a population is another one
MIN_IMAGES = 30  # of either side; fewer tell nothing
ALPHA = 0.01  # how often chance may pass for drift, over all groups of a kind
_WINDOWS = 12  # of a run, at most, over time
_PER_WINDOW = 100  # images, at least


class Status(str, Enum):
    """What is known of a shift."""

    STABLE = "stable"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"  # too few images to tell

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Some images of a run against images of the baseline."""

    name: str
    status: Status
    images: int  # with a score
    baseline: int  # that they are held against
    psi: float | None = None  # the population stability index; None: too few images
    chance: float | None = None  # what chance alone stays below, but for ALPHA
    ks: float | None = None  # distance of Kolmogorov and Smirnov, in [0, 1]
    p: float | None = None  # probability of such a distance by chance
    median: float | None = None  # score, now
    baseline_median: float | None = None

    @property
    def index(self) -> float:
        """The index to sort by: too few images come last."""
        return -1.0 if self.psi is None else self.psi


def shift(
    name: str, baseline: ScoreSample, current: ScoreSample, *, limit: float, of: int = 1
) -> Shift:
    """Hold some scores against others; `of` is among how many comparisons this is one."""
    n, m = len(baseline.scores), len(current.scores)
    if min(n, m) < MIN_IMAGES:
        return Shift(name=name, status=Status.UNKNOWN, images=m, baseline=n)
    edges = statistics.bin_edges(baseline.scores, m)
    index = statistics.psi(baseline.scores, current.scores, edges)
    chance = statistics.psi_of_chance(edges, n, m, ALPHA / of)
    distance, p = statistics.kolmogorov_smirnov(baseline.scores, current.scores)
    if index > limit and index > chance:
        status = Status.DRIFTED
    elif index <= limit and chance <= limit:
        status = Status.STABLE
    else:
        status = Status.UNKNOWN
    return Shift(
        name=name,
        status=status,
        images=m,
        baseline=n,
        psi=index,
        chance=chance,
        ks=distance,
        p=p,
        median=float(np.median(current.scores)),
        baseline_median=float(np.median(baseline.scores)),
    )


def by_field(
    field: str, baseline: ScoreSample, current: ScoreSample, *, limit: float
) -> list[Shift]:
    """Hold each group of a field against the baseline's images of that group.

    Where the baseline has too few of them, as of a new lot, against all of it.
    """
    values = sorted(current.values(field))
    shifts = []
    for value in values:
        same = baseline.only(field, value)
        against = same if len(same.scores) >= MIN_IMAGES else baseline
        group = current.only(field, value)
        shifts.append(shift(value, against, group, limit=limit, of=len(values)))
    return shifts


def over_time(baseline: ScoreSample, current: ScoreSample, *, limit: float) -> list[Shift]:
    """Hold stretches of the run, of equally many images, against the baseline.

    Along time where all times are known, else in the order of the results. Empty where there
    are too few images for two.
    """
    total = len(current.scores)
    windows = min(total // _PER_WINDOW, _WINDOWS)
    if windows < 2:
        return []
    has_times = bool(np.isfinite(current.times).all())
    order = np.argsort(current.times, kind="stable") if has_times else np.arange(total)
    edges = np.linspace(0, total, windows + 1).astype(int)
    shifts = []
    for start, end in zip(edges, edges[1:], strict=False):
        places = order[start:end]
        name = f"images {start + 1:,} to {end:,}"
        if has_times:
            name = _span(current.times[places[[0, -1]]])
        part = current.at(places)
        shifts.append(shift(name, baseline, part, limit=limit, of=windows))
    return shifts


def worst(shifts: Sequence[Shift]) -> Status:
    """Tell what is known of several: drifted if one has, unknown only if nothing is known."""
    states = {shift.status for shift in shifts}
    return next(
        (state for state in (Status.DRIFTED, Status.STABLE) if state in states), Status.UNKNOWN
    )


def _span(times: NDArray[np.float64]) -> str:
    first, last = (datetime.fromtimestamp(float(time), timezone.utc) for time in times)
    form = "%H:%M" if first.date() == last.date() else "%Y-%m-%d %H:%M"
    return f"{first:%Y-%m-%d %H:%M} to {last.strftime(form)} UTC"
