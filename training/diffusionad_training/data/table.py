"""Tables that come with data sets, as people and spreadsheets write them."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffusionad_client import regular_files
from diffusionad_training.errors import DataError


def read_table(table: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV file by line number, with these columns and maybe others.

    With or without the byte-order mark that spreadsheets write; what nobody
    sees is left out, see `as_seen`. Raises `DataError`.
    """
    try:
        text = regular_files.read(table).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        names = [as_seen(name) for name in reader.fieldnames or ()]
        if not set(columns) <= set(names):
            raise DataError(f"{table}: needs the columns {','.join(columns)}; has {names}")
        reader.fieldnames = names
        for row in reader:
            yield reader.line_num, {name: as_seen(row[name] or "") for name in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise DataError(f"{table}: cannot be read: {reason}; save it as CSV in UTF-8") from exc


def as_seen(text: str) -> str:
    """Leave out what nobody sees: spaces at the ends, and how accents are put together."""
    return unicodedata.normalize("NFC", text.strip())
