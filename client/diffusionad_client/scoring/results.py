"""The results of a run on disk, and how they are read again.

    OUTPUT/
      results.jsonl       one JSON object an image, in source order
      results.csv         the same, flat
      run.json            what was scored, with which model, and the counts
      heatmaps/           NAME.png: the anomaly map over the image
      reconstructions/    NAME.jpg: the product as the model would expect it
      anomaly_maps/       NAME.png: 16-bit grey, 65535 is 1.0 (only with --save-maps)
      report.html

NAME is the image's name with its suffix, so a.png and a.jpg never meet. While
a run is under way its rows are in results.jsonl.part and results.csv.part.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from diffusionad_client.errors import OutputError, ReportError
from diffusionad_client.files import PART, output_errors, publish, write_aside
from diffusionad_client.sdk.inspection import Inspection

RESULTS_JSONL = "results.jsonl"
RESULTS_CSV = "results.csv"
RUN_JSON = "run.json"
REPORT_HTML = "report.html"
HEATMAPS = "heatmaps"
RECONSTRUCTIONS = "reconstructions"
ANOMALY_MAPS = "anomaly_maps"

_FILES = (RESULTS_JSONL, RESULTS_CSV, RUN_JSON, REPORT_HTML)
PICTURE_FOLDERS = (HEATMAPS, RECONSTRUCTIONS, ANOMALY_MAPS)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image: either scored, or failed with an error. Fields are the columns of the CSV."""

    image: str  # its name: the path relative to the run's root
    score: float | None = None  # None also for a score that is not a number
    verdict: str | None = None
    accept: float | None = None
    reject: float | None = None
    model: str | None = None
    version: str | None = None
    release: str | None = None
    roi: str | None = None  # digest of the region that was inspected; None: the whole image
    decode_s: float | None = None
    resize_s: float | None = None
    request_s: float | None = None
    heatmap: str | None = None  # files, relative to the output folder
    reconstruction: str | None = None
    anomaly_map: str | None = None
    error_type: str | None = None
    error_message: str | None = None

    @classmethod
    def scored(cls, image: str, inspection: Inspection, decode_s: float, **files: str) -> Row:
        """Make the row of an inspected image; `files` are the pictures made of it."""
        return cls(
            image=image,
            score=inspection.score if math.isfinite(inspection.score) else None,
            verdict=inspection.verdict.value,
            accept=inspection.thresholds.accept,
            reject=inspection.thresholds.reject,
            model=inspection.model,
            version=inspection.version,
            release=inspection.release,
            roi=inspection.roi,
            decode_s=round(decode_s, 6),
            resize_s=round(inspection.timings.resize_s, 6),
            request_s=round(inspection.timings.request_s, 6),
            **files,
        )

    @classmethod
    def failed(cls, image: str, error: Exception) -> Row:
        """Make the row of an image that could not be scored."""
        return cls(image=image, error_type=type(error).__name__, error_message=str(error))

    def to_document(self) -> dict[str, Any]:
        """Give the JSON form: timings, thresholds and error as objects, null where not known."""
        flat = asdict(self)
        document = {name: flat[name] for name in ("image", "score", "verdict")}
        document["thresholds"] = _group(flat, "accept", "reject")
        document |= {name: flat[name] for name in ("model", "version", "release", "roi")}
        document["timings"] = _group(flat, "decode_s", "resize_s", "request_s")
        document |= {name: flat[name] for name in ("heatmap", "reconstruction", "anomaly_map")}
        error = {"type": self.error_type, "message": self.error_message}
        document["error"] = error if self.error_type is not None else None
        return document

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Row:
        """Read what `to_document` gave."""
        flat = dict(document)
        flat |= flat.pop("thresholds") or {}
        flat |= flat.pop("timings") or {}
        error = flat.pop("error")
        if error is not None:
            flat |= {"error_type": error["type"], "error_message": error["message"]}
        return cls(**flat)


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a finished run did."""

    model: str
    server: str
    root: str  # the folder that the images' names are relative to
    started: str  # ISO 8601, with the zone
    seconds: float
    images: int
    failed: int
    verdicts: dict[str, int]


def check_free(output: Path) -> None:
    """Raise `OutputError` if results of an earlier run stand in the folder."""
    with output_errors(output):
        earlier = _earlier_results(output)
    if earlier:
        raise OutputError(
            f"{output}: holds the results of an earlier run ({earlier[0].name}); "
            "choose another folder, or replace them with --overwrite"
        )


class ResultsWriter:
    """Writes the rows of one run. Files get their names at `finish`; until then they end in .part.

    Raises `OutputError` if results of an earlier run stand in the folder,
    unless they may be overwritten: then they are removed first.
    """

    def __init__(self, output: Path, *, overwrite: bool = False) -> None:
        self._output = output
        with output_errors(output):
            _make_room(output, overwrite)
        self._stack = ExitStack()
        self._jsonl = self._open(RESULTS_JSONL)
        self._csv = csv.DictWriter(self._open(RESULTS_CSV), [field.name for field in fields(Row)])
        self._csv.writeheader()

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with output_errors(self._output):
            self._stack.close()

    def write(self, row: Row) -> None:
        """Add one image."""
        with output_errors(self._output / RESULTS_JSONL):
            self._jsonl.write(json.dumps(row.to_document(), allow_nan=False) + "\n")
            self._csv.writerow(asdict(row))

    def finish(self, summary: RunSummary) -> None:
        """Give the files their names."""
        with output_errors(self._output):
            self._stack.close()
        for name in (RESULTS_CSV, RESULTS_JSONL):
            publish(self._output / (name + PART), self._output / name)
        write_aside(self._output / RUN_JSON, json.dumps(asdict(summary), indent=2).encode())

    def _open(self, name: str) -> TextIO:
        part = self._output / (name + PART)
        with output_errors(part):
            # Line by line, so that a run can be watched, and a killed one leaves whole rows.
            # File names that are not UTF-8 go through as the bytes they are.
            file = part.open(
                "w", encoding="utf-8", errors="surrogateescape", newline="", buffering=1
            )
        return self._stack.enter_context(file)


def read_rows(output: Path) -> Iterator[Row]:
    """Yield the rows of a finished run. Raises `ReportError`."""
    path = output / RESULTS_JSONL
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Row.from_document(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as exc:
                    raise ReportError(f"{path}, line {number}: not a row of results") from exc
    except OSError as exc:
        raise ReportError(
            f"{path}: cannot be read: {exc.strerror}; `diffusionad score` writes it"
        ) from exc


def read_summary(output: Path) -> RunSummary:
    """Read what a finished run did. Raises `ReportError`."""
    path = output / RUN_JSON
    try:
        return RunSummary(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as exc:
        raise ReportError(
            f"{path}: cannot be read: {exc.strerror}; `diffusionad score` writes it"
        ) from exc
    except (ValueError, TypeError) as exc:
        raise ReportError(f"{path}: not the summary of a run") from exc


def _group(flat: dict[str, Any], *names: str) -> dict[str, Any] | None:
    return None if flat[names[0]] is None else {name: flat[name] for name in names}


def _make_room(output: Path, overwrite: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    earlier = _earlier_results(output)
    if not overwrite:
        check_free(output)
    for path in earlier:
        path.unlink()
    for folder in PICTURE_FOLDERS:  # ours too, but only if the results were
        if earlier and (output / folder).is_dir():
            shutil.rmtree(output / folder)


def _earlier_results(output: Path) -> list[Path]:
    ours = [output / (name + suffix) for name in _FILES for suffix in ("", PART)]
    return [path for path in ours if path.exists()]
