"""Tables made from results.jsonl, for spreadsheets and for data frames."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import fields
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusionad_client.errors import ArgumentError
from diffusionad_client.files import output_errors
from diffusionad_client.scoring.results import read_lines
from diffusionad_client.scoring.row import Row

if TYPE_CHECKING:
    import pyarrow

# A cell that begins so is a formula to spreadsheets; file names come from anywhere.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_GROUP = 10_000  # rows of a Parquet file that are in memory at once

COLUMNS = tuple(field.name for field in fields(Row) if field.name != "fields")


class Format(str, Enum):
    """A form that results are written in."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"

    def __str__(self) -> str:
        return self.value


def check_can_write(formats: Collection[Format]) -> None:
    """Raise `ArgumentError` if a package that a format needs is not installed."""
    from importlib.util import find_spec

    if Format.PARQUET in formats and find_spec("pyarrow") is None:
        raise ArgumentError(
            "Parquet needs pyarrow, which is not installed here; "
            "run `pip install 'diffusionad-client[parquet]'`, or choose csv"
        )


def write_table(results: Path, target: Path, form: Format) -> None:
    """Make a table of a file of results, with a column for each of the user's fields.

    Raises `ReportError` for results that cannot be read, `OutputError` for a
    target that cannot be written; what there is of it then is left.
    """
    names = field_names(results)
    with output_errors(target):
        if form is Format.PARQUET:
            _write_parquet(results, target, names)
        else:
            _write_csv(results, target, names)


def field_names(results: Path) -> dict[str, str]:
    """Name the users' fields in a file of results, and the column of each."""
    found: dict[str, None] = {}
    for row in read_lines(results):
        found.update(dict.fromkeys(row.fields))
    return {name: f"field.{name}" if name in COLUMNS else name for name in sorted(found)}


def _write_csv(results: Path, target: Path, names: Mapping[str, str]) -> None:
    # With the mark without which Excel takes it for the encoding of its own country. Names of
    # files that are not UTF-8 go through as the bytes they are.
    with target.open("w", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        table = csv.writer(file)
        table.writerow([_cell(name) for name in (*COLUMNS, *names.values())])
        for row in read_lines(results):
            own = [row.fields.get(name) for name in names]
            table.writerow([_cell(value) for value in (*_values(row), *own)])


def _values(row: Row) -> Iterator[Any]:
    return (getattr(row, name) for name in COLUMNS)


def _cell(value: Any) -> Any:
    """Keep a spreadsheet from running what is only a name: with the ' that it does not show."""
    if isinstance(value, tuple):
        value = json.dumps([*map(dict, value)])
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _write_parquet(results: Path, target: Path, names: Mapping[str, str]) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = _schema(pyarrow, names)
    with closing(read_lines(results)) as rows, parquet.ParquetWriter(target, schema) as writer:
        while group := list(islice(rows, _GROUP)):
            documents = [_document(row, names) for row in group]
            writer.write_table(pyarrow.Table.from_pylist(documents, schema=schema))


def _document(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    values = dict(zip(COLUMNS, map(_text, _values(row)), strict=True))
    own = {column: _text(row.fields.get(name)) for name, column in names.items()}
    return {**values, **own}


def _text(value: Any) -> Any:
    """Make valid UTF-8 of names that are not, and JSON of regions: Parquet holds nothing else."""
    if isinstance(value, tuple):
        return json.dumps([*map(dict, value)])
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


def _schema(pyarrow: Any, names: Mapping[str, str]) -> pyarrow.Schema:
    kinds = {"float | None": pyarrow.float64(), "int | None": pyarrow.int64()}
    columns = {field.name: kinds.get(str(field.type), pyarrow.string()) for field in fields(Row)}
    del columns["fields"]
    columns |= dict.fromkeys(names.values(), pyarrow.string())
    return pyarrow.schema(list(columns.items()))
