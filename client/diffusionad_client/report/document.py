"""The columns of a run as the page's script reads them: one compact JSON document.

Numbers are the bytes of little-endian arrays in base64: a tenth of the time
that a browser takes for their digits, and exactly the scores that were judged.
Names and fields come from anyone's files. The document holds no "<", so that
nothing in it ends the element that it stands in, and the script makes texts of
them, never markup.
"""

from __future__ import annotations

import base64
import json
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.artifacts.rank_statistics import auroc
from diffusionad_client.folders import is_good
from diffusionad_client.pages import histogram
from diffusionad_client.pages.pictures import SCALE_HEIGHT
from diffusionad_client.report.embedding import SHOWN_BY_BROWSERS
from diffusionad_client.scoring.gathered import FOLDER, Coded, Gathered

MAX_NAMED = 100_000  # images that the table and the gallery hold, those with the highest scores


def document(
    run: Gathered, *, images: str | None, baseline: NDArray[np.float64] | None
) -> dict[str, Any]:
    """Give all that the page's script needs but the embedded pictures.

    `images` is the URL of the folder of the images, None where they cannot be
    linked. `baseline` are the scores of an earlier run, drawn behind this one's.
    """
    thresholds = run.thresholds
    if thresholds is None:
        raise ValueError("nothing was scored")
    parts = [run.finite()] if baseline is None else [run.finite(), baseline]
    highest = max((float(part.max()) for part in parts if len(part)), default=0.0)
    end, ticks = histogram.axis(max(thresholds.reject, highest, 1e-6))
    named = _named(run)
    return {
        "total": len(run.names),
        "names": [name if keep else None for name, keep in zip(run.names, named, strict=True)],
        "scores": packed(run.scores, "<f8"),
        "verdicts": packed(run.verdicts, "u1"),
        "times": packed(run.times, "<f8") if _known(run.times) else None,
        "numbers": {
            name: packed(values, "<f8") for name, values in run.numbers.items() if _known(values)
        },
        "accept": thresholds.accept,
        "reject": thresholds.reject,
        "releases": len(run.releases),
        "fields": [_field(name, column) for name, column in run.fields.items()],
        "classes": _classes(run),
        "axis": {"end": end, "ticks": ticks, "bins": histogram.BINS},
        "baseline": None if baseline is None else _counts(baseline, end),
        "pictures": {
            "image": images,
            "heatmap": _field("heatmap", run.heatmaps),
            "reconstruction": _field("reconstruction", run.reconstructions),
            "strip": SCALE_HEIGHT,
            "shown": SHOWN_BY_BROWSERS,
        },
    }


def as_script(value: object) -> str:
    """Write JSON that can stand inside a script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def packed(values: array[Any] | bytearray | NDArray[Any], kind: str) -> str:
    """Give the bytes of an array, of a numpy dtype such as "<f8", in base64."""
    return base64.b64encode(np.asarray(values).astype(kind).tobytes()).decode("ascii")


def _named(run: Gathered) -> NDArray[np.bool_]:
    named = np.ones(len(run.names), np.bool_)
    if len(named) > MAX_NAMED:
        scores = np.frombuffer(run.scores, np.float64)
        ranked = np.argsort(np.where(np.isnan(scores), -np.inf, -scores), kind="stable")
        named[ranked[MAX_NAMED:]] = False
    return named


def _field(name: str, column: Coded) -> dict[str, Any]:
    return {"name": name, "values": list(column.values), "codes": packed(column.codes, "<i4")}


def _classes(run: Gathered) -> dict[str, Any] | None:
    """Say which folders are of good parts, and how well each other is told from them."""
    column = run.fields[FOLDER]
    good = [code for name, code in column.values.items() if is_good(name)]
    if not good:
        return None
    codes, scores = np.frombuffer(column.codes, np.int32), np.frombuffer(run.scores, np.float64)
    finite = np.isfinite(scores)
    of_good = scores[finite & np.isin(codes, good)]

    def told(which: NDArray[np.bool_]) -> float | None:
        return auroc(of_good, scores[finite & which])

    return {
        "good": good,
        "auroc": [None if code in good else told(codes == code) for code in column.values.values()],
        "overall": told(~np.isin(codes, good)),
    }


def _counts(scores: NDArray[np.float64], end: float) -> list[int]:
    """Count an earlier run's scores in the bins of the page's histogram."""
    places = np.clip((scores / end * histogram.BINS).astype(int), 0, histogram.BINS - 1)
    return [int(count) for count in np.bincount(places, minlength=histogram.BINS)]


def _known(values: array[float]) -> bool:
    return bool(np.isfinite(np.frombuffer(values, np.float64)).any())
