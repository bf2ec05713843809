"""Which images show the same part, so that no part is on two sides of a split.

DATA/groups.csv    optional, columns path,group: exposures of one part
"""

from __future__ import annotations

import csv
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from diffusionad_training.data.layout import DataSet
from diffusionad_training.errors import DataError

GROUPS_FILE = "groups.csv"


@dataclass(frozen=True)
class Grouping:
    """The groups of a data set's training images."""

    groups: list[str]  # of each training image
    in_test: frozenset[str]  # groups that the test set has images of

    def trainable(self) -> list[int]:
        """Indices of the training images whose group is not in the test set."""
        return [i for i, group in enumerate(self.groups) if group not in self.in_test]


def grouping(data: DataSet) -> Grouping:
    """Group training images by groups.csv where there is one; else each is a group of its own.

    Raises `DataError` if groups.csv is malformed or does not name an image.
    """
    names = [data.name(path) for path in data.train]
    table = data.root / GROUPS_FILE
    if not table.is_file():
        return Grouping(names, frozenset())
    group_of = _read_groups(table)
    missing = [name for name in names if _same(name) not in group_of]
    if missing:
        raise DataError(f"{table}: does not name {len(missing)} images, the first {missing[0]!r}")
    tested = {_same(data.name(sample.path)) for sample in data.test}
    in_test = frozenset(
        group
        for name, group in group_of.items()
        # A test set that is kept elsewhere is still named in the table.
        if name in tested or name.startswith("test/")
    )
    return Grouping([group_of[_same(name)] for name in names], in_test)


def _read_groups(table: Path) -> dict[str, str]:
    group_of: dict[str, str] = {}
    try:
        # With or without the byte-order mark that spreadsheets write.
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [_same(name) for name in reader.fieldnames or ()]
            if not {"path", "group"} <= set(reader.fieldnames):
                raise DataError(f"{table}: needs the columns path,group; has {reader.fieldnames}")
            for row in reader:
                path, group = _same(row["path"] or ""), _same(row["group"] or "")
                if not path or not group:
                    raise DataError(f"{table}, line {reader.line_num}: a path or group is missing")
                if group_of.setdefault(path, group) != group:
                    raise DataError(
                        f"{table}, line {reader.line_num}: {path} is in group {group} and in "
                        f"group {group_of[path]}"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DataError(f"{table}: cannot be read: {exc}") from exc
    return group_of


def _same(text: str) -> str:
    """Leave out what nobody sees: spaces at the ends, and how accents are put together."""
    return unicodedata.normalize("NFC", text.strip())
