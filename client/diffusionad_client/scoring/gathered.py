"""The results of a run by column, gathered in one pass over its rows.

One array a column: reports and comparisons of hundreds of thousands of images are
made in little memory, and a browser reads the columns as they stand.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.folders import class_of
from diffusionad_client.scoring.row import Row

MAX_FAILURES = 200  # failures listed
NAME = "\0"  # stands for the image's name; no file's name holds it
FOLDER, RELEASE, SERVER = "folder", "release", "server"  # fields that every run has
NUMBERS = ("area_percent", "request_s")  # of a row, shown beside its score

VERDICTS = tuple(verdict.value for verdict in Verdict)
_CODES = {verdict: code for code, verdict in enumerate(VERDICTS)}
_DIGITS = 12  # of a release's digest, as people read it


@dataclass(frozen=True, order=True)
class JudgedBy:
    """The release and thresholds behind a verdict; a run may see more than one."""

    version: str
    release: str
    accept: float
    reject: float
    roi: str  # digest of the region that is inspected; empty: the whole image


@dataclass
class Coded:
    """A column of texts, of which few differ: each once, and its number for every image."""

    values: dict[str, int] = field(default_factory=dict)
    codes: array[int] = field(default_factory=lambda: array("i"))  # -1: none

    def put(self, place: int, value: str | None) -> None:
        """Set the value of the image at `place`, the last so far; those between have none."""
        self.codes.extend([-1] * (place - len(self.codes)))
        code = -1 if value is None else self.values.setdefault(value, len(self.values))
        self.codes.append(code)


@dataclass
class Gathered:
    """The scored images of a run by column, in their order, and what was not scored."""

    names: list[str] = field(default_factory=list)
    scores: array[float] = field(default_factory=lambda: array("d"))  # nan: not a number
    verdicts: bytearray = field(default_factory=bytearray)  # place in VERDICTS
    times: array[float] = field(default_factory=lambda: array("d"))  # epoch, s; nan: not known
    numbers: dict[str, array[float]] = field(  # nan: not known
        default_factory=lambda: {name: array("d") for name in NUMBERS}
    )
    fields: dict[str, Coded] = field(default_factory=dict)
    # Files of the results by their pattern, such as "heatmaps/" + NAME + ".png".
    heatmaps: Coded = field(default_factory=Coded)
    reconstructions: Coded = field(default_factory=Coded)
    models: set[str] = field(default_factory=set)  # the categories that scored them: one, mostly
    releases: Counter[JudgedBy] = field(default_factory=Counter)
    failures: list[Row] = field(default_factory=list)  # the first MAX_FAILURES
    failed: Counter[str] = field(default_factory=Counter)  # type of the error -> images

    @property
    def counts(self) -> dict[str, int]:
        """How many images got each verdict."""
        return {verdict: self.verdicts.count(code) for verdict, code in _CODES.items()}

    @property
    def constants(self) -> dict[str, str]:
        """Give the fields that have one value for all images, such as the lot."""
        known = (FOLDER, RELEASE, SERVER)
        return {
            name: next(iter(column.values))
            for name, column in self.fields.items()
            if name not in known and len(column.values) == 1 and -1 not in column.codes
        }

    @property
    def thresholds(self) -> Thresholds | None:
        """Those behind most of the verdicts; None if nothing was scored."""
        for release, _ in self.releases.most_common(1):
            return Thresholds.as_stored(release.accept, release.reject)
        return None

    def finite(self) -> NDArray[np.float64]:
        """Give the scores that are numbers, in order."""
        scores: NDArray[np.float64] = np.frombuffer(self.scores, np.float64)
        numbers: NDArray[np.float64] = scores[np.isfinite(scores)]
        return numbers


def gather(rows: Iterable[Row]) -> Gathered:
    """Read all rows into columns."""
    result = Gathered()
    for row in rows:
        if row.verdict is None:
            result.failed[row.error_type or "Error"] += 1
            if len(result.failures) < MAX_FAILURES:
                result.failures.append(row)
        else:
            _add(result, row)
    for column in result.fields.values():
        column.codes.extend([-1] * (len(result.names) - len(column.codes)))
    return result


def _add(result: Gathered, row: Row) -> None:
    place = len(result.names)
    result.names.append(row.image)
    result.scores.append(math.nan if row.score is None else row.score)
    result.verdicts.append(_CODES[row.verdict or ""])
    result.times.append(_time(row.scored_at))
    for name, numbers in result.numbers.items():
        number = getattr(row, name)
        numbers.append(math.nan if number is None else number)
    for name, value in _fields(row).items():
        result.fields.setdefault(name, Coded()).put(place, value)
    result.heatmaps.put(place, _pattern(row.image, row.heatmap))
    result.reconstructions.put(place, _pattern(row.image, row.reconstruction))
    if row.model is not None:
        result.models.add(row.model)
    judged_by = JudgedBy(
        version=row.version or "",
        release=row.release or "",
        accept=row.accept or 0.0,
        reject=row.reject or 0.0,
        roi=row.roi or "",
    )
    result.releases[judged_by] += 1


def _fields(row: Row) -> dict[str, str | None]:
    """Give what images can be grouped by: what we know, and the user's own fields."""
    known = {
        FOLDER: class_of(row.image),
        RELEASE: f"{row.version or ''} · {(row.release or '')[:_DIGITS]}",
        SERVER: row.server,
    }
    own = {f"{name} (field)" if name in known else name: row.fields[name] for name in row.fields}
    return known | own


def _time(text: str | None) -> float:
    if text is None:
        return math.nan
    try:
        # Python 3.10 reads no "Z".
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):  # results are edited
        return math.nan


def _pattern(image: str, picture: str | None) -> str | None:
    if picture is None:
        return None
    folder, between, rest = picture.partition(f"/{image}")
    return f"{folder}/{NAME}{rest}" if between else picture
