"""The drift of one run's results from an earlier run's, judged in all ways at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.drift.meaning import Asked, Meaning, meanings
from diffusionad_client.drift.sample import ScoreSample
from diffusionad_client.drift.shifts import (
    LIMIT,
    MIN_IMAGES,
    Shift,
    Status,
    by_field,
    over_time,
    shift,
    worst,
)
from diffusionad_client.errors import ReportError
from diffusionad_client.scoring.gathered import Gathered, gather
from diffusionad_client.scoring.results import read_rows, read_summary

MAX_GROUPS = 500  # of a field that nobody named: more, such as serial numbers, are no groups
_NAMED = 5  # groups that a sentence names


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What is known of how a run's scores lie to an earlier run's."""

    parts: str  # "good parts" where folders tell them on both sides, else "parts"
    limit: float
    overall: Shift
    fields: dict[str, list[Shift]] = field(default_factory=dict)  # by the value of a field
    over_time: list[Shift] = field(default_factory=list)
    meanings: list[Meaning] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # why the two may not be comparable

    @property
    def status(self) -> Status:
        """Drifted if the run as a whole has, or a group, or a stretch of time."""
        groups = [one for shifts in self.fields.values() for one in shifts]
        if worst([self.overall, *groups, *self.over_time]) is Status.DRIFTED:
            return Status.DRIFTED
        return self.overall.status

    @property
    def sentence(self) -> str:
        """Say the status in plain words."""
        whole = self.overall
        if self.status is Status.UNKNOWN:
            if whole.psi is None:
                return (
                    f"Too little is known: {whole.images:,} {self.parts} against "
                    f"{whole.baseline:,}; at least {MIN_IMAGES} of each are needed."
                )
            return (
                f"Too little is known: among {whole.images:,} {self.parts} against "
                f"{whole.baseline:,}, chance alone may reach a PSI of {whole.chance:.3f}; the "
                f"limit is {self.limit:g}, and {whole.psi:.3f} was found."
            )
        if self.status is Status.STABLE:
            return f"Stable: the PSI is {whole.psi:.3f}, and the limit {self.limit:g}."
        where = [f"all {self.parts}"] if whole.status is Status.DRIFTED else []
        for kind, shifts in {**self.fields, "time": self.over_time}.items():
            names = [shift.name for shift in shifts if shift.status is Status.DRIFTED]
            if names:
                more = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
                where.append(f"{kind} {', '.join(names[:_NAMED])}{more}")
        return f"Drifted, a PSI above {self.limit:g}: {'; '.join(where)}."

    def document(self) -> dict[str, Any]:
        """Give the JSON form: the fields of this class, with the status and its sentence."""
        return {"status": self.status.value, "sentence": self.sentence, **asdict(self)}


def compare_folders(
    baseline: Path,
    current: Path,
    *,
    limit: float = LIMIT,
    fields: Sequence[str] | None = None,
    asked: Asked | None = None,
) -> Drift:
    """Compare the results in two folders; see `compare`. Raises `ReportError`."""
    earlier, later = gather(read_rows(baseline)), gather(read_rows(current))
    for name in fields or ():
        if name not in later.fields:
            known = ", ".join(later.fields) or "none: nothing was scored"
            raise ReportError(f"{current}: no image has a field {name!r}; there are: {known}")
    rates = rates_of(current)
    return compare(earlier, later, limit=limit, fields=fields, asked=asked, calibrated_to=rates)


def rates_of(results: Path) -> Asked:
    """Give the rates that the thresholds of results were calibrated to, as far as they say so."""
    try:
        summary = read_summary(results)
    except ReportError:  # rows are enough to tell a drift
        return Asked()
    return Asked(false_reject_rate=summary.false_reject_rate, review_rate=summary.review_rate)


def compare(
    baseline: Gathered,
    current: Gathered,
    *,
    limit: float = LIMIT,
    fields: Sequence[str] | None = None,
    asked: Asked | None = None,
    calibrated_to: Asked | None = None,
) -> Drift:
    """Judge the drift of scores, and of what the current run's thresholds mean.

    `limit` is what the population stability index may reach. `fields` are those to group by;
    None: all of the user's own that have at most MAX_GROUPS values. Where a folder is called
    good on both sides, only good parts are compared: how many parts are defective is no drift.
    `asked` are the rates that thresholds are held against. Where those are not given, and good
    parts are compared, it is `calibrated_to`: that was a promise about good parts. Raises
    `ReportError` for runs of different products.
    """
    if baseline.models and current.models and not baseline.models & current.models:
        raise ReportError(
            f"the baseline is of {_list(baseline.models)}, this run of {_list(current.models)}: "
            "scores of different categories cannot be compared"
        )
    before, now = ScoreSample.of(baseline), ScoreSample.of(current)
    good_before, good_now = before.good, now.good
    parts, rates = "parts", asked or Asked()
    if len(good_before.scores) and len(good_now.scores):
        before, now, parts = good_before, good_now, "good parts"
        rates = rates.completed(calibrated_to or Asked())
    if fields is None:
        fields = [name for name in now.own_fields if len(now.values(name)) <= MAX_GROUPS]
    thresholds = current.thresholds
    return Drift(
        parts=parts,
        limit=limit,
        overall=shift("all", before, now, limit=limit),
        fields={name: by_field(name, before, now, limit=limit) for name in fields},
        over_time=over_time(before, now, limit=limit),
        meanings=[] if thresholds is None else meanings(before, now, thresholds, rates, parts),
        notes=_notes(baseline, current, parts),
    )


def _notes(baseline: Gathered, current: Gathered, parts: str) -> list[str]:
    notes = []
    before, now = ({one.release for one in run.releases} for run in (baseline, current))
    if before and now and before != now:
        names = " and ".join(
            _list(release[:12] or "no name" for release in releases) for releases in (before, now)
        )
        notes.append(
            f"The releases differ ({names}): the scores may have moved with the model, not with "
            "the parts. Score the baseline's images with the release of today to tell."
        )
    first, second = baseline.thresholds, current.thresholds
    if first is not None and second is not None and first != second:
        notes.append(
            f"The thresholds differ: the baseline was judged by {_pair(first)}, this run by "
            f"{_pair(second)}. Rates are of this run's thresholds on both sides."
        )
    for run, name in ((baseline, "the baseline"), (current, "this run")):
        nan = len(run.names) - len(run.finite())
        if nan:
            notes.append(f"{nan:,} images of {name} have a score that is not a number.")
        if failed := run.failed.total():
            notes.append(f"{failed:,} images of {name} were not scored.")
    if parts == "parts":
        notes.append(
            "No folder called good tells on both sides which parts are good: more defective "
            "parts look like drift."
        )
    return notes


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _pair(thresholds: Thresholds) -> str:
    return f"{thresholds.accept:.4g} and {thresholds.reject:.4g}"
