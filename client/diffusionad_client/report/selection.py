"""What a report shows of a run: counts over all images, pictures of a bounded choice."""

from __future__ import annotations

import heapq
import random
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from diffusionad_client.artifacts.metadata import Verdict
from diffusionad_client.scoring.row import Row

HIGHEST = 110  # images with the highest scores
OF_EACH_VERDICT = 30  # images drawn at random from each verdict
MAX_SHOWN = HIGHEST + OF_EACH_VERDICT * len(Verdict)
MAX_FAILURES = 200  # failures listed


@dataclass(frozen=True, order=True)
class JudgedBy:
    """The release and thresholds behind a verdict; a run may see more than one."""

    version: str
    release: str
    accept: float
    reject: float
    roi: str  # digest of the region that is inspected; empty: the whole image


@dataclass
class Overview:
    """Gathered in one pass over the rows; memory grows by a number an image only."""

    scores: dict[str, array[float]] = field(
        default_factory=lambda: {verdict.value: array("d") for verdict in Verdict}
    )
    releases: Counter[JudgedBy] = field(default_factory=Counter)
    failures: list[Row] = field(default_factory=list)  # the first MAX_FAILURES
    failed: int = 0
    shown: list[Row] = field(default_factory=list)  # by score, highest first

    @property
    def scored(self) -> int:
        """How many images got a verdict."""
        return sum(self.counts.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many images got each verdict."""
        return {verdict: len(scores) for verdict, scores in self.scores.items()}


def overview(rows: Iterable[Row]) -> Overview:
    """Count all rows, and choose those to show: the highest scores and some of each verdict.

    The choice is random but the same every time, so a report can be made again.
    """
    result = Overview()
    draw = random.Random(0)
    highest: list[tuple[float, int, Row]] = []
    samples: dict[str, list[tuple[int, Row]]] = {verdict.value: [] for verdict in Verdict}
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows):
        if row.verdict is None:
            result.failed += 1
            if len(result.failures) < MAX_FAILURES:
                result.failures.append(row)
            continue
        result.releases[_release(row)] += 1
        score = _rank(row)
        result.scores[row.verdict].append(score)
        entry = (score, -number, row)
        if len(highest) < HIGHEST:
            heapq.heappush(highest, entry)
        elif entry[:2] > highest[0][:2]:
            heapq.heapreplace(highest, entry)
        # Reservoir sampling: each row of a verdict is kept with the same chance.
        seen[row.verdict] += 1
        sample = samples[row.verdict]
        if len(sample) < OF_EACH_VERDICT:
            sample.append((number, row))
        elif (place := draw.randrange(seen[row.verdict])) < OF_EACH_VERDICT:
            sample[place] = (number, row)
    chosen = {-number: row for _, number, row in highest}
    for sample in samples.values():
        chosen.update(sample)
    in_order = sorted(chosen.items(), key=lambda item: (-_rank(item[1]), item[0]))
    result.shown = [row for _, row in in_order]
    return result


def _rank(row: Row) -> float:
    """Place an image among the others: one whose score is not a number comes first."""
    return 1.0 if row.score is None else row.score


def _release(row: Row) -> JudgedBy:
    return JudgedBy(
        version=row.version or "",
        release=row.release or "",
        accept=row.accept or 0.0,
        reject=row.reject or 0.0,
        roi=row.roi or "",
    )
