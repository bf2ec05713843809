"""Which images show the same part, so that no part is on two sides of a split.

DATA/groups.csv    optional, columns path,group: exposures of one part
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusionad_training.data.layout import DataSet
from diffusionad_training.data.table import as_seen, read_table
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
    missing = [name for name in names if as_seen(name) not in group_of]
    if missing:
        raise DataError(f"{table}: does not name {len(missing)} images, the first {missing[0]!r}")
    tested = {as_seen(data.name(sample.path)) for sample in data.test}
    in_test = frozenset(
        group
        for name, group in group_of.items()
        # A test set that is kept elsewhere is still named in the table.
        if name in tested or name.startswith("test/")
    )
    return Grouping([group_of[as_seen(name)] for name in names], in_test)


def _read_groups(table: Path) -> dict[str, str]:
    group_of: dict[str, str] = {}
    for number, row in read_table(table, ("path", "group")):
        path, group = row["path"], row["group"]
        if not path or not group:
            raise DataError(f"{table}, line {number}: a path or group is missing")
        if group_of.setdefault(path, group) != group:
            raise DataError(
                f"{table}, line {number}: {path} is in group {group} and in group {group_of[path]}"
            )
    return group_of
