"""What drift needs of a run: its scores, when they were given, and what they are grouped by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.folders import is_good
from diffusionad_client.scoring.gathered import FOLDER, RELEASE, SERVER, Gathered


@dataclass(frozen=True)
class ScoreSample:
    """Scores that are numbers, each with its time and the codes of its fields, in order."""

    scores: NDArray[np.float64]
    times: NDArray[np.float64]  # seconds since 1970, nan: not known
    codes: Mapping[str, NDArray[np.int32]]  # field -> code of its value, -1: none
    names: Mapping[str, tuple[str, ...]]  # field -> its values, by code

    @classmethod
    def of(cls, run: Gathered) -> ScoreSample:
        """Take all images of a run whose score is a number."""
        scores = np.frombuffer(run.scores, np.float64)
        finite = np.flatnonzero(np.isfinite(scores))
        return cls(
            scores,
            np.frombuffer(run.times, np.float64),
            {name: np.frombuffer(column.codes, np.int32) for name, column in run.fields.items()},
            {name: tuple(column.values) for name, column in run.fields.items()},
        ).at(finite)

    def at(self, places: NDArray[np.int64]) -> ScoreSample:
        """Take some of the images."""
        codes = {name: column[places] for name, column in self.codes.items()}
        return ScoreSample(self.scores[places], self.times[places], codes, self.names)

    def values(self, field: str) -> list[str]:
        """Give the values that images have in a field; none if no image has it."""
        names = self.names.get(field, ())
        codes = np.unique(self.codes[field]) if names else ()
        return [names[code] for code in codes if code >= 0]

    def only(self, field: str, value: str) -> ScoreSample:
        """Take the images with a value in a field."""
        names = self.names.get(field, ())
        if value not in names:
            return self.at(np.empty(0, np.int64))
        return self.at(np.flatnonzero(self.codes[field] == names.index(value)))

    @property
    def good(self) -> ScoreSample:
        """Take the images of good parts, by their folder."""
        good = [code for code, name in enumerate(self.names.get(FOLDER, ())) if is_good(name)]
        if not good:
            return self.at(np.empty(0, np.int64))
        return self.at(np.flatnonzero(np.isin(self.codes[FOLDER], good)))

    @property
    def own_fields(self) -> list[str]:
        """Name the user's fields in which images differ."""
        known = (FOLDER, RELEASE, SERVER)
        return [name for name in self.names if name not in known and len(self.values(name)) > 1]
