"""Results whose parts are known to be good or defective, as calibration takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from diffusionad_client.artifacts.calibration import pixel_level
from diffusionad_client.errors import CalibrationError
from diffusionad_client.pages.pictures import read_map_png
from diffusionad_client.scoring.results import read_rows
from diffusionad_client.scoring.row import Row


@dataclass
class Labelled:
    """The scores of one release, by the state of the part."""

    model: str = ""
    release: str = ""
    good: list[float] = field(default_factory=list)
    defective: list[float] = field(default_factory=list)
    good_pixel_levels: list[float] = field(default_factory=list)  # of good maps, where saved
    other: int = 0  # images that no pattern names
    failed: int = 0  # images without a score


def read_labelled(
    results: Path, *, good: Sequence[str] = ("*",), defects: Sequence[str] = ()
) -> Labelled:
    """Sort the images of a `score` output folder by patterns on their names, as shells have them.

    `defects` goes first, so that `good` may be everything else. Raises
    `CalibrationError` or `ReportError`.
    """
    labelled = Labelled()
    releases: set[tuple[str, str]] = set()
    for row in read_rows(results):
        if row.error_type is not None:
            labelled.failed += 1
            continue
        is_defective = _named(row, defects)
        if not is_defective and not _named(row, good):
            labelled.other += 1
            continue
        if row.score is None:
            raise CalibrationError(
                f"{results}: the score of {row.image} is not a number; no threshold can be set by "
                "it. Leave it out by --good, or find out why the model fails on it"
            )
        releases.add((row.model or "", row.release or ""))
        if is_defective:
            labelled.defective.append(row.score)
            continue
        labelled.good.append(row.score)
        if row.anomaly_map is not None:
            level = pixel_level(read_map_png(results / row.anomaly_map))
            labelled.good_pixel_levels.append(level)
    if len(releases) > 1:
        raise CalibrationError(
            f"{results}: its scores come from {len(releases)} releases "
            f"({', '.join(sorted(release for _, release in releases))}); thresholds belong to one: "
            "score the images again"
        )
    if releases:
        labelled.model, labelled.release = releases.pop()
    return labelled


def _named(row: Row, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(row.image, pattern) for pattern in patterns)
