"""Pair the results of two runs over the same images, and count what differs.

Everything is read in one pass. Kept are two numbers an image, and the rows of
images whose verdict changed or that could not be scored.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np

from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.artifacts.rank_statistics import auroc, spearman
from diffusionad_client.errors import ReportError
from diffusionad_client.folders import class_of, is_good
from diffusionad_client.scoring.results import RunSummary, read_rows, read_summary
from diffusionad_client.scoring.row import Row

_SEVERITY = {verdict.value: place for place, verdict in enumerate(Verdict)}  # OK, REVIEW, NG


@dataclass(frozen=True)
class Pair:
    """One image as both releases answered it."""

    image: str
    base: Row
    candidate: Row

    @property
    def failed(self) -> bool:
        """Tell whether either could not score it."""
        return self.base.verdict is None or self.candidate.verdict is None

    @property
    def changed(self) -> bool:
        """Tell whether both scored it and their verdicts differ."""
        return not self.failed and self.base.verdict != self.candidate.verdict

    @property
    def step(self) -> int:
        """How far the verdict moved towards NG: from -2, NG to OK, to 2, OK to NG."""
        return _SEVERITY[self.candidate.verdict or ""] - _SEVERITY[self.base.verdict or ""]

    @property
    def shift(self) -> float:
        """How much higher the candidate scored; 0 where a score is no number."""
        if self.base.score is None or self.candidate.score is None:
            return 0.0
        return self.candidate.score - self.base.score


@dataclass
class Side:
    """One of the two releases, over the whole run."""

    summary: RunSummary
    folder: Path  # of its results
    # (version, release, accept, reject) -> images; more than one if it changed during the run
    releases: Counter[tuple[str, str, float, float]] = field(default_factory=Counter)
    auroc: float | None = None  # good against all other classes, where the folders say which

    @property
    def thresholds(self) -> Thresholds | None:
        """Those behind most of the verdicts; None if there is none."""
        for (_, _, accept, reject), _ in self.releases.most_common(1):
            return Thresholds.as_stored(accept, reject)
        return None


@dataclass
class ClassCounts:
    """The images of one folder."""

    name: str
    images: int = 0
    failed: int = 0  # by either
    changed: int = 0
    base: Counter[str] = field(default_factory=Counter)  # verdict -> images that both scored
    candidate: Counter[str] = field(default_factory=Counter)
    base_auroc: float | None = None  # against the good class
    candidate_auroc: float | None = None


@dataclass
class Points:
    """The scores of every image that both gave a number, in the order of the images."""

    base: array[float] = field(default_factory=lambda: array("d"))
    candidate: array[float] = field(default_factory=lambda: array("d"))
    folder: array[int] = field(default_factory=lambda: array("L"))  # index into the classes
    verdict: list[str] = field(default_factory=list)  # the candidate's, "" where both agree


@dataclass
class Comparison:
    """What two releases made of the same images."""

    base: Side
    candidate: Side
    images: int = 0
    changes: list[Pair] = field(default_factory=list)  # the most severe first
    failures: list[Pair] = field(default_factory=list)
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    classes: dict[str, ClassCounts] = field(default_factory=dict)  # by folder
    points: Points = field(default_factory=Points)
    spearman: float | None = None

    @property
    def compared(self) -> int:
        """How many images both scored."""
        return self.images - len(self.failures)


def compare_results(base: Path, candidate: Path) -> Comparison:
    """Compare two folders of results of the same images. Raises `ReportError` if they are not."""
    result = Comparison(Side(read_summary(base), base), Side(read_summary(candidate), candidate))
    numbers: dict[str, int] = {}  # class -> its index
    for pair in _pairs(base, candidate):
        result.images += 1
        name = class_of(pair.image)
        group = result.classes.setdefault(name, ClassCounts(name))
        group.images += 1
        if pair.failed:
            group.failed += 1
            result.failures.append(pair)
            continue
        _count(result, group, pair)
        if pair.base.score is not None and pair.candidate.score is not None:
            points = result.points
            points.base.append(pair.base.score)
            points.candidate.append(pair.candidate.score)
            points.folder.append(numbers.setdefault(name, len(numbers)))
            points.verdict.append((pair.candidate.verdict or "") if pair.changed else "")
    result.changes.sort(key=lambda pair: (-abs(pair.step), -abs(pair.shift), pair.image))
    result.spearman = spearman(result.points.base, result.points.candidate)
    _separate(result, numbers)
    return result


def _pairs(base: Path, candidate: Path) -> Iterator[Pair]:
    for one, other in zip_longest(read_rows(base), read_rows(candidate)):
        if one is None or other is None or one.image != other.image:
            raise ReportError(
                f"{base} and {candidate}: the results are not of the same images in the same order"
            )
        yield Pair(one.image, one, other)


def _count(result: Comparison, group: ClassCounts, pair: Pair) -> None:
    before, after = pair.base.verdict or "", pair.candidate.verdict or ""
    result.transitions[before, after] += 1
    group.base[before] += 1
    group.candidate[after] += 1
    for side, row in ((result.base, pair.base), (result.candidate, pair.candidate)):
        about = (row.version or "", row.release or "", row.accept or 0.0, row.reject or 0.0)
        side.releases[about] += 1
    if pair.changed:
        group.changed += 1
        result.changes.append(pair)


def _separate(result: Comparison, numbers: Mapping[str, int]) -> None:
    """Measure how well each release tells the good folders from the others, if there are any."""
    folder = np.asarray(result.points.folder)
    good = np.isin(folder, [n for name, n in numbers.items() if is_good(name)])
    base, candidate = np.asarray(result.points.base), np.asarray(result.points.candidate)
    result.base.auroc = auroc(base[good], base[~good])
    result.candidate.auroc = auroc(candidate[good], candidate[~good])
    for name, number in numbers.items():
        if not is_good(name):
            group, bad = result.classes[name], folder == number
            group.base_auroc = auroc(base[good], base[bad])
            group.candidate_auroc = auroc(candidate[good], candidate[bad])
