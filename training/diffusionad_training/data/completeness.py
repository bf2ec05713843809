"""Whether a downloaded data set is whole: what is there against what is published.

Counts find what is missing, `layout.read` what does not belong together (an
image without its mask, a row of a table without its image), and a look at each
file's end the ones that a broken download has cut short.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusionad_client.folders import find_images
from diffusionad_training.data import layout
from diffusionad_training.data.published import SETS, Form, PublishedSet
from diffusionad_training.data.table import read_table
from diffusionad_training.errors import DataError

_ENDS = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}  # of files that are whole
_TAIL = 1024  # bytes at the end in which it is looked for
_NAMED = 3  # of damaged files
_VISA_TABLE = Path("split_csv", "1cls.csv")


@dataclass(frozen=True)
class Count:
    """How many of one kind are there."""

    kind: str
    found: int
    published: int | None  # None: unknown

    @property
    def fits(self) -> bool:
        """Whether it is what is published, as far as that is known."""
        return self.published in (None, self.found)


@dataclass(frozen=True)
class CategoryCheck:
    """What one category's folder holds."""

    category: str
    counts: tuple[Count, ...]
    faults: tuple[str, ...]  # sentences on what is wrong, empty if it is whole

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


@dataclass(frozen=True)
class SetCheck:
    """What a folder holds of a data set."""

    published: PublishedSet
    root: Path
    categories: tuple[CategoryCheck, ...]
    missing: tuple[str, ...]  # categories without a folder; none if one category was asked about

    @property
    def is_whole(self) -> bool:
        """Whether every category is there and whole."""
        return not self.missing and all(one.is_whole for one in self.categories)


def check(root: Path, *, category: str | None = None) -> SetCheck:
    """Compare a folder, of a whole set or of one of its categories, with what is published.

    Sets and categories are known by the names of their folders; `category`
    names that of a folder called otherwise. Raises `DataError` if there is no
    such folder, or nothing in it that is known.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of a data set")
    name = category or root.resolve().name
    for published in SETS:
        if name in published.categories and (category is not None or _holds(root, published.form)):
            return SetCheck(published, root, (_check_category(root, name, published),), ())
    if category is not None:
        raise DataError(f"{category!r} is no category of {_known()}; name one as they do")
    present = {
        published.title: [one for one in published.categories if (root / one).is_dir()]
        for published in SETS
    }
    published = max(SETS, key=lambda one: len(present[one.title]))
    if not (names := present[published.title]):
        raise DataError(
            f"{root}: neither one of {_known()}, nor a category of one, by the names of its "
            "folders; unpack it first, or say which category it is with --category"
        )
    return SetCheck(
        published,
        root,
        tuple(_check_category(root / one, one, published) for one in names),
        tuple(one for one in published.categories if one not in names),
    )


def _known() -> str:
    return ", ".join(published.title for published in SETS)


def _holds(root: Path, form: Form) -> bool:
    """Whether a folder has what a category of this form has at the least."""
    markers = {"mvtec": ("train", "test"), "visa": ("Data",), "dagm": ("Train", "Test")}
    return any((root / marker).is_dir() for marker in (*markers.get(form, ()), "Imgs"))


def _check_category(root: Path, name: str, published: PublishedSet) -> CategoryCheck:
    expected = published.categories[name]
    found = _COUNTED_BY[published.form](root)
    counts = tuple(Count(kind, found[kind], number) for kind, number in expected.items())
    faults = [
        f"{one.found} {one.kind} where {one.published} are published"
        for one in counts
        if not one.fits
    ]
    faults.extend(_cut_short(root))
    if published.form != "tile" and not faults:
        try:
            layout.read(root)
        except DataError as exc:
            faults.append(str(exc))
    return CategoryCheck(name, counts, tuple(faults))


def _count(folder: Path) -> int:
    return sum(1 for _ in find_images(folder)) if folder.is_dir() else 0


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _in_mvtec(root: Path) -> Mapping[str, int]:
    classes = [folder for folder in _folders(root / "test") if folder.name != layout.GOOD]
    return {
        "train/good": _count(root / "train" / layout.GOOD),
        "test/good": _count(root / "test" / layout.GOOD),
        "test, defective": sum(map(_count, classes)),
        "classes of defects": len(classes),
        "masks": _count(root / "ground_truth"),
    }


def _in_visa(root: Path) -> Mapping[str, int]:
    table = root.parent / _VISA_TABLE
    rows: Iterable[tuple[int, dict[str, str]]] = ()
    if table.is_file():
        rows = read_table(table, ("object",))
    return {
        "Normal": _count(root / "Data" / "Images" / "Normal"),
        "Anomaly": _count(root / "Data" / "Images" / "Anomaly"),
        "masks": _count(root / "Data" / "Masks" / "Anomaly"),
        "rows of 1cls.csv": sum(row["object"] == root.name for _, row in rows),
    }


def _in_dagm(root: Path) -> Mapping[str, int]:
    labels = {half: _count(root / half / "Label") for half in ("Train", "Test")}
    images = {half: _count(root / half) - labels[half] for half in labels}
    return {**images, "labels": sum(labels.values()), "labels of Test": labels["Test"]}


def _in_tile(root: Path) -> Mapping[str, int]:
    suffixes = [Path(name).suffix.lower() for name in find_images(root)]
    return {
        "images": len(suffixes) - suffixes.count(".png"),  # photographs are JPEG, masks PNG
        "masks": suffixes.count(".png"),
    }


_COUNTED_BY: Mapping[Form, Callable[[Path], Mapping[str, int]]] = {
    "mvtec": _in_mvtec,
    "visa": _in_visa,
    "dagm": _in_dagm,
    "tile": _in_tile,
}


def _cut_short(root: Path) -> Iterator[str]:
    """Name image files that end before their format says so."""
    damaged = [name for name in map(str, find_images(root)) if not _is_whole(Path(name))]
    if damaged:
        names = ", ".join(os.path.relpath(name, root) for name in sorted(damaged)[:_NAMED])
        more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        yield f"{len(damaged)} files are empty or cut short: {names}{more}"


def _is_whole(path: Path) -> bool:
    end = _ENDS.get(path.suffix.lower(), b"")
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            return size > 0 and end in file.read()
    except OSError:
        return False
