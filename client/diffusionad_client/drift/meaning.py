"""Whether thresholds still mean what they did: how many parts they turn away, then and now."""

from __future__ import annotations

from dataclasses import dataclass

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.drift import statistics
from diffusionad_client.drift.sample import ScoreSample
from diffusionad_client.drift.shifts import ALPHA, MIN_IMAGES, Status

MATERIAL = 1.5  # times as many, or as few: less is no reason to stop a line
_TOLERATED = 0.01  # of the parts: that much more than expected need not be ruled out


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The rates that thresholds were calibrated to, as shares of good parts; None: not known."""

    false_reject_rate: float | None = None  # may be NG
    review_rate: float | None = None  # may be REVIEW or NG

    def completed(self, other: Asked) -> Asked:
        """Give these rates, with those of another where they are not known."""
        return Asked(
            false_reject_rate=_first(self.false_reject_rate, other.false_reject_rate),
            review_rate=_first(self.review_rate, other.review_rate),
        )


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """How many parts reach a threshold."""

    threshold: str  # "reject" or "accept"
    value: float
    status: Status
    hits: int  # parts that reach it now
    of: int
    low: float  # the true rate lies between, with 95 % confidence
    high: float
    asked: float | None  # the rate it was calibrated to
    baseline_hits: int  # parts of the baseline that reach this threshold
    baseline_of: int
    sentence: str


def meanings(
    baseline: ScoreSample, current: ScoreSample, thresholds: Thresholds, asked: Asked, parts: str
) -> list[Meaning]:
    """Judge both thresholds of the current run. `parts` is what the samples are called."""
    if not len(current.scores):
        return []
    pairs = (
        ("reject", thresholds.reject, asked.false_reject_rate, "NG"),
        ("accept", thresholds.accept, asked.review_rate, "REVIEW or NG"),
    )
    return [_meaning(baseline, current, *pair, parts) for pair in pairs]


def _meaning(
    baseline: ScoreSample,
    current: ScoreSample,
    threshold: str,
    value: float,
    asked: float | None,
    verdicts: str,
    parts: str,
) -> Meaning:
    hits, of = int((current.scores >= value).sum()), len(current.scores)
    before, before_of = int((baseline.scores >= value).sum()), len(baseline.scores)
    low, high = statistics.rate_interval(hits, of)
    now = f"Of {of:,} {parts}, {hits / of:.2%} are {verdicts} (95 %: {low:.2%} to {high:.2%})"
    if asked is not None:
        status = _against_rate(hits / of, low, high, asked)
        then = f"the {threshold} threshold {value:.4g} was calibrated to {asked:.2%}"
        more = hits / of > asked
    elif before_of == 0:
        status, then, more = Status.UNKNOWN, "the baseline has none to compare with", False
    else:
        status = _against_baseline(hits, of, before, before_of)
        then = (
            f"of {before_of:,} in the baseline the {threshold} threshold {value:.4g} would have "
            f"turned away {before / before_of:.2%}"
        )
        more = hits / of > before / before_of
    conclusion = {
        Status.STABLE: "it still means that",
        Status.DRIFTED: f"it no longer means that, it turns away {'more' if more else 'fewer'}",
        Status.UNKNOWN: "too little is known to tell whether it still means that",
    }[status]
    return Meaning(
        threshold=threshold,
        value=value,
        status=status,
        hits=hits,
        of=of,
        low=low,
        high=high,
        asked=asked,
        baseline_hits=before,
        baseline_of=before_of,
        sentence=f"{now}; {then}: {conclusion}.",
    )


def _first(*rates: float | None) -> float | None:
    return next((rate for rate in rates if rate is not None), None)


def _against_rate(rate: float, low: float, high: float, asked: float) -> Status:
    material = rate > asked * MATERIAL or rate < asked / MATERIAL
    if material:
        return Status.UNKNOWN if low <= asked <= high else Status.DRIFTED
    return _if_sure(high, asked)


def _against_baseline(hits: int, of: int, before: int, before_of: int) -> Status:
    if min(of, before_of) < MIN_IMAGES:
        return Status.UNKNOWN
    rate, earlier = hits / of, before / before_of
    if rate > earlier * MATERIAL or rate < earlier / MATERIAL:
        chance = statistics.same_rate(hits, of, before, before_of)
        return Status.DRIFTED if chance < ALPHA else Status.UNKNOWN
    return _if_sure(statistics.rate_interval(hits, of)[1], earlier)


def _if_sure(high: float, expected: float) -> Status:
    """Say stable only where a rate far above the expected one is ruled out."""
    return Status.STABLE if high <= 2 * MATERIAL * expected + _TOLERATED else Status.UNKNOWN
