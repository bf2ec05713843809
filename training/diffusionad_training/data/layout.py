"""Find the images of a data set on disk, in the layouts that data sets come in.

A layout is one entry of `LAYOUTS`: what its folders are known by, and a
function that lists its images. The first whose marker is there is taken.

    mvtec    MVTec AD, MPDD: train/good, test/<class>, ground_truth/<class>
    visa     VisA, one category's folder: Data/Images, and the split in ../split_csv/1cls.csv
    dagm     DAGM 2007, one class's folder: Train, Test, each with Label
    plain    good, and beside it a folder for each class of defects; masks/<class>
    folder   good images and nothing else

Images may lie in subfolders of all these. Folders of good parts are called
`good` or `ok`, in any case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusionad_client.folders import IMAGE_SUFFIXES, LeftOut, Reason, find_images, is_hidden
from diffusionad_training.data.mask_files import MaskFiles
from diffusionad_training.data.table import read_table
from diffusionad_training.errors import DataError

GOOD = "good"
_GOOD_NAMES = ("good", "ok")  # of folders, in any case
TEST_GOOD = "test_good"  # plain: good parts to test on, since all of `good` is trained on
_MASK_FOLDERS = ("ground_truth", "masks")
_LABELS = "label"  # dagm, in any case
# A folder of good images has none of these in it: it is of another layout, misspelt.
_NOT_GOOD = frozenset(
    {"ng", "nok", "bad", "defect", "defects", "defective", "anomaly", "anomalies", "reject"}
)
_VISA_SPLIT = Path("split_csv", "1cls.csv")
_VISA_COLUMNS = ("object", "split", "label", "image", "mask")
_TABLE = ".csv"  # such as groups.csv: they go without saying


@dataclass(frozen=True)
class Sample:
    """One image of a data set, with what is known of it."""

    path: Path
    split: Literal["train", "test"]
    defect: str  # its class; `good` for good parts
    mask: Path | None = None  # None for good parts and where there is no ground truth

    @property
    def is_defective(self) -> bool:
        """Whether the part should be rejected."""
        return self.defect != GOOD


@dataclass(frozen=True)
class Layout:
    """One way in which data sets lie on disk."""

    name: str
    markers: tuple[str, ...]  # paths in the data's folder, any of which tells the layout;
    # the last part of one that ends in `good` may be any name of good parts
    list_samples: Callable[[_Search], Iterator[Sample]]


@dataclass(frozen=True)
class DataSet:
    """What a folder holds."""

    root: Path
    layout: str
    train: tuple[Path, ...]  # good images to train on, sorted
    test: tuple[Sample, ...]  # by class, then by name
    left_out: LeftOut

    def name(self, path: Path) -> str:
        """Name an image by its path relative to the root, as groups.csv does."""
        return path.relative_to(self.root).as_posix()

    def require_train(self) -> tuple[Path, ...]:
        """Give the good images to train on. Raises `DataError` if there are none."""
        if not self.train:
            raise DataError(
                f"{self.root}: no good images to train on (looked for "
                f"{', '.join(sorted(IMAGE_SUFFIXES))} in the layout {self.layout!r}); put them "
                "into this folder, or into train/good in it"
            )
        return self.train

    def require_test(self) -> tuple[Sample, ...]:
        """Give the images to test on. Raises `DataError` if there are none."""
        if not self.test:
            raise DataError(
                f"{self.root}: no images to test on in the layout {self.layout!r}; make a folder "
                f"`test` with one folder a class, {GOOD!r} among them"
            )
        return self.test


class _Search:
    """Finds images below the root of a data set, and keeps count of what is left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out = LeftOut()

    def images(self, folder: Path, *, skip: Sequence[str] = ()) -> list[Path]:
        """List the images of a folder, at every depth, but not in folders called as in `skip`."""
        if not folder.is_dir():
            return []
        passed_over = _WithoutTables()
        found = find_images(
            folder, passed_over, skip=lambda real: os.path.basename(real).lower() in skip
        )
        paths = sorted(map(Path, found))
        self.left_out.include(passed_over, os.path.relpath(folder, self.root))
        return paths


class _WithoutTables(LeftOut):
    def add(self, reason: Reason, name: str) -> None:
        if not name.lower().endswith(_TABLE):
            super().add(reason, name)


def read(root: Path) -> DataSet:
    """List the images of a data set. Raises `DataError` if it is not whole."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of images")
    layout = next(entry for entry in LAYOUTS if any(_is_there(root, m) for m in entry.markers))
    search = _Search(root)
    samples = list(layout.list_samples(search))
    return DataSet(
        root=root,
        layout=layout.name,
        train=tuple(sorted(s.path for s in samples if s.split == "train")),
        test=tuple(
            sorted((s for s in samples if s.split == "test"), key=lambda s: (s.defect, s.path))
        ),
        left_out=search.left_out,
    )


def _is_there(root: Path, marker: str) -> bool:
    path = root / marker
    return path.exists() or (path.name == GOOD and bool(_good_folders(path.parent)))


def _mvtec(search: _Search) -> Iterator[Sample]:
    for folder in _good_folders(search.root / "train"):
        yield from (Sample(path, "train", GOOD) for path in search.images(folder))
    for folder in _folders(search.root / "test"):
        yield from _class_folder(search, folder)


def _plain(search: _Search) -> Iterator[Sample]:
    for folder in _folders(search.root):
        if _is_good(folder):
            yield from (Sample(path, "train", GOOD) for path in search.images(folder))
        elif folder.name == TEST_GOOD:
            yield from (Sample(path, "test", GOOD) for path in search.images(folder))
        elif folder.name not in _MASK_FOLDERS:
            yield from _class_folder(search, folder)


def _folder(search: _Search) -> Iterator[Sample]:
    for path in search.images(search.root, skip=_MASK_FOLDERS):
        folders = path.relative_to(search.root).parts[:-1]
        if named := [folder for folder in folders if folder.lower() in _NOT_GOOD]:
            raise DataError(
                f"{search.root}: the folder {named[0]!r} in it can hardly hold good images; put "
                f"the good ones into {GOOD}/, with a folder for each class of defect beside it"
            )
        yield Sample(path, "train", GOOD)


def _dagm(search: _Search) -> Iterator[Sample]:
    # An image is defective if there is a label for it; the defective ones of Train are left out.
    splits: tuple[tuple[Literal["train", "test"], str], ...] = (
        ("train", "Train"),
        ("test", "Test"),
    )
    for split, name in splits:
        folder = search.root / name
        labels = MaskFiles(folder / "Label")
        for path in search.images(folder, skip=(_LABELS,)):
            label = labels.find(path.relative_to(folder), ending="_label")
            if label is None:
                yield Sample(path, split, GOOD)
            elif split == "test":
                yield Sample(path, split, "defect", label)


def _visa(search: _Search) -> Iterator[Sample]:
    root = search.root
    table = root.parent / _VISA_SPLIT
    if not table.is_file():
        raise DataError(
            f"{table}: missing; VisA's split of {root.name} is in it. Keep the category's folder "
            "where the data set has it, beside split_csv"
        )
    for number, row in read_table(table, _VISA_COLUMNS):
        if row["object"] != root.name:
            continue
        path = root.parent / row["image"]
        mask = root.parent / row["mask"] if row["mask"] else None
        for needed in (path, mask):
            if needed is not None and not needed.is_file():
                raise DataError(f"{table}, line {number}: {needed} is missing")
        good = row["label"] == "normal"
        if row["split"] == "train":
            yield Sample(path, "train", GOOD)
        else:
            yield Sample(path, "test", GOOD if good else row["label"], mask)


def _class_folder(search: _Search, folder: Path) -> Iterator[Sample]:
    """List the test images of one class, with their masks: a class has them for all or for none."""
    if _is_good(folder):
        yield from (Sample(path, "test", GOOD) for path in search.images(folder))
        return
    places = [search.root / name / folder.name for name in _MASK_FOLDERS]
    masked = next((place for place in places if place.is_dir()), None)
    masks = None if masked is None else MaskFiles(masked)
    for path in search.images(folder):
        mask = None if masks is None else masks.find(path.relative_to(folder))
        if mask is None and masked is not None:
            raise DataError(
                f"{path}: no mask {masked / path.stem}_mask.png, though its class has masks"
            )
        yield Sample(path, "test", folder.name, mask)


def _is_good(folder: Path) -> bool:
    return folder.name.lower() in _GOOD_NAMES


def _good_folders(folder: Path) -> list[Path]:
    return [path for path in _folders(folder) if _is_good(path)]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))


LAYOUTS = (
    Layout("visa", ("Data/Images",), _visa),
    Layout("dagm", ("Train/Label", "Test/Label"), _dagm),
    Layout("mvtec", ("train/good", "test"), _mvtec),
    Layout("plain", ("good",), _plain),
    Layout("folder", (".",), _folder),
)
