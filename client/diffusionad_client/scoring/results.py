"""The results of a run on disk, and how they are read again.

    OUTPUT/
      results.jsonl       one row an image, as JSON, in the order of the source: the truth
      results.csv         the same as a table, made from it
      results.parquet     the same, if asked for
      run.json            what was scored, with which model, and the counts
      heatmaps/           NAME.png: the anomaly map over the image (or .jpg, .webp)
      reconstructions/    NAME.jpg: the product as the model would expect it
      anomaly_maps/       NAME.png: 16-bit grey, 65535 is 1.0 (only with --save-maps)
      report.html
      report.pdf          the same, printed (only if `diffusionad report` was asked for it)

NAME is the image's name with its suffix, so a.png and a.jpg never meet. While
a run is under way all of these end in .part, unless it goes on from whole
results; see `beginning` and `output_folders`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from diffusionad_client import regular_files
from diffusionad_client.errors import ReportError
from diffusionad_client.files import PART
from diffusionad_client.output_folders import Kind, settle
from diffusionad_client.scoring.last_lines import superseded
from diffusionad_client.scoring.row import NewerSchemaError, Row

RESULTS_JSONL = "results.jsonl"
RESULTS_CSV = "results.csv"
RESULTS_PARQUET = "results.parquet"
RUN_JSON = "run.json"
REPORT_HTML = "report.html"
REPORT_PDF = "report.pdf"  # if `diffusionad report` was asked for it
HEATMAPS = "heatmaps"
RECONSTRUCTIONS = "reconstructions"
ANOMALY_MAPS = "anomaly_maps"

PICTURE_FOLDERS = (HEATMAPS, RECONSTRUCTIONS, ANOMALY_MAPS)

_PICTURE_FIELDS = ("heatmap", "reconstruction", "anomaly_map")
_PICTURES = ("*.png", "*.jpg", "*.webp", "*.part")  # .part: of a run that was killed


def _pictures_of(output: Path) -> set[str] | None:
    """Name the pictures of whole results; None if they do not say, so that suffixes must."""
    if (output / (RUN_JSON + PART)).exists():  # a run that went on was killed: it had drawn more
        return None
    names: set[str] = set()
    try:
        with regular_files.open_regular(output / RESULTS_JSONL) as file:
            for line in file:
                document = json.loads(line)
                names.update(document[name] for name in _PICTURE_FIELDS if document[name])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # edited since
        return None
    return names


RESULTS = Kind(
    name="score",
    content="the results of an earlier run",
    entries=(
        *PICTURE_FOLDERS,
        *(RESULTS_CSV, RESULTS_PARQUET, RESULTS_JSONL, RUN_JSON, REPORT_HTML, REPORT_PDF),
    ),
    proofs=(RESULTS_JSONL,),
    inside={folder: _PICTURES for folder in PICTURE_FOLDERS},
    named=_pictures_of,
)

_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


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
    scored: int | None = None  # in the run's last part; None: not written down
    # Shares of good parts that the thresholds were calibrated to let be NG, and be REVIEW or NG;
    # None: not known, or the run had a threshold of its own.
    false_reject_rate: float | None = None
    review_rate: float | None = None

    @property
    def images_per_second(self) -> float | None:
        """How fast the last part of the run was; None if it did nothing."""
        scored = self.images if self.scored is None else self.scored
        return scored / self.seconds if scored and self.seconds else None

    @classmethod
    def from_document(cls, document: object) -> RunSummary:
        """Read what was written of a summary. Raises `ValueError` with what is wrong."""
        if not isinstance(document, dict):
            raise ValueError("it is no object")
        values: dict[str, Any] = {}
        for field in fields(cls):
            if document.get(field.name) is None and field.default is None:
                continue
            if field.name not in document:
                raise ValueError(f"{field.name} is missing")
            values[field.name] = value = document[field.name]
            if isinstance(value, bool) or not isinstance(value, _KINDS[str(field.type)]):
                raise ValueError(f"{field.name} is {value!r}, not {field.type}")
        datetime.fromisoformat(values["started"])
        return cls(**values)


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "float": (int, float),
    "int": (int,),
    "int | None": (int,),
    "float | None": (int, float),
    "dict[str, int]": (dict,),
}


def check_results(output: Path) -> None:
    """Raise `ReportError` if a folder holds no results, before anything is written to it."""
    path = output / RESULTS_JSONL
    if not os.path.lexists(path):
        raise ReportError(
            f"{path}: there is no such file; `diffusionad score --output {output}` writes it"
        )


def read_rows(output: Path) -> Iterator[Row]:
    """Yield the rows of a run's results, of an image the last, in the order of their lines.

    Blank lines, a byte-order mark and a last line that a kill tore off are
    passed over; results of earlier versions are read. Memory does not grow
    with the rows but by 17 bytes each. Raises `ReportError` with the line, of
    rows of a later version too, or `OutputError` while another run replaces
    the results.
    """
    settle(output)
    yield from read_lines(output / RESULTS_JSONL)


def read_lines(path: Path) -> Generator[Row, None, None]:
    """Yield the rows of one file of results; see `read_rows`."""
    try:
        with regular_files.open_regular(path) as file:
            replaced = superseded(file)
            file.seek(0)
            # What a run that goes on adds meanwhile is for the next reader.
            for number, (line, is_replaced) in enumerate(
                zip(file, replaced, strict=False), start=1
            ):
                if number == 1:
                    line = _without_mark(line, path)
                if is_replaced or not line.strip():
                    continue
                try:
                    row = Row.from_document(json.loads(line.decode("utf-8")))
                except NewerSchemaError as exc:
                    raise ReportError(f"{path}, line {number}: {exc}") from exc
                except (ValueError, RecursionError) as exc:
                    if not line.endswith(b"\n") and number > 1:
                        return
                    raise ReportError(
                        f"{path}, line {number}: not a row of results: {exc}"
                    ) from exc
                yield row
    except OSError as exc:
        raise ReportError(
            f"{path}: cannot be read: {exc.strerror}; `diffusionad score` writes it"
        ) from exc


def read_summary(output: Path) -> RunSummary:
    """Read what a finished run did. Raises `ReportError`."""
    settle(output)
    path = output / RUN_JSON
    try:
        content = _without_mark(regular_files.read(path), path)
        return RunSummary.from_document(json.loads(content.decode("utf-8")))
    except OSError as exc:
        raise ReportError(
            f"{path}: cannot be read: {exc.strerror}; `diffusionad score` writes it"
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise ReportError(f"{path}: not the summary of a run: {exc}") from exc


def _without_mark(content: bytes, path: Path) -> bytes:
    if content.startswith(_UTF_16):
        raise ReportError(
            f"{path}, line 1: the file is in UTF-16, as some editors and PowerShell write it; "
            "save it as UTF-8"
        )
    return content.removeprefix(_BOM)
