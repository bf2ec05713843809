"""Find the images of a data set on disk, in the layouts that data sets come in.

A layout is one entry of `LAYOUTS`: what its folders are known by, and a
function that lists its images. The first whose marker is there is taken.

    mvtec    MVTec AD, MPDD: train/good, test/<class>, ground_truth/<class>
    visa     VisA, one category's folder: Data/Images, and the split in ../split_csv/1cls.csv
    dagm     DAGM 2007, one class's folder: Train, Test, each with Label
    plain    good, and beside it a folder for each class of defects; masks/<class>
    folder   good images and nothing else
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusionad_client.folders import IMAGE_SUFFIXES
from diffusionad_training.errors import DataError

GOOD = "good"
TEST_GOOD = "test_good"  # plain: good parts to test on, since all of `good` is trained on
_MASK_FOLDERS = ("ground_truth", "masks")
_VISA_SPLIT = Path("split_csv", "1cls.csv")
_VISA_COLUMNS = {"object", "split", "label", "image", "mask"}


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
    markers: tuple[str, ...]  # paths in the data's folder, any of which tells the layout
    list_samples: Callable[[Path], Iterator[Sample]]


@dataclass(frozen=True)
class DataSet:
    """What a folder holds."""

    root: Path
    layout: str
    train: tuple[Path, ...]  # good images to train on, sorted
    test: tuple[Sample, ...]  # by class, then by name
    ignored: tuple[Path, ...]  # files beside the images that are none by their suffix

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


def read(root: Path) -> DataSet:
    """List the images of a data set. Raises `DataError` if it is not whole."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of images")
    layout = next(entry for entry in LAYOUTS if any((root / m).exists() for m in entry.markers))
    samples = list(layout.list_samples(root))
    folders = {sample.path.parent for sample in samples}
    return DataSet(
        root=root,
        layout=layout.name,
        train=tuple(sorted(s.path for s in samples if s.split == "train")),
        test=tuple(
            sorted((s for s in samples if s.split == "test"), key=lambda s: (s.defect, s.path))
        ),
        ignored=tuple(path for folder in sorted(folders) for path in _other_files(folder)),
    )


def _mvtec(root: Path) -> Iterator[Sample]:
    yield from (Sample(path, "train", GOOD) for path in _images(root / "train" / GOOD))
    for folder in _folders(root / "test"):
        yield from _class_folder(root, folder)


def _plain(root: Path) -> Iterator[Sample]:
    yield from (Sample(path, "train", GOOD) for path in _images(root / GOOD))
    yield from (Sample(path, "test", GOOD) for path in _images(root / TEST_GOOD))
    for folder in _folders(root):
        if folder.name not in (GOOD, TEST_GOOD, *_MASK_FOLDERS):
            yield from _class_folder(root, folder)


def _folder(root: Path) -> Iterator[Sample]:
    yield from (Sample(path, "train", GOOD) for path in _images(root))


def _dagm(root: Path) -> Iterator[Sample]:
    # An image is defective if there is a label for it; the defective ones of Train are left out.
    splits: tuple[tuple[Literal["train", "test"], str], ...] = (
        ("train", "Train"),
        ("test", "Test"),
    )
    for split, name in splits:
        labels = {path.stem: path for path in _images(root / name / "Label")}
        for path in _images(root / name):
            label = labels.get(f"{path.stem}_label")
            if label is None:
                yield Sample(path, split, GOOD)
            elif split == "test":
                yield Sample(path, split, "defect", label)


def _visa(root: Path) -> Iterator[Sample]:
    table = root.parent / _VISA_SPLIT
    if not table.is_file():
        raise DataError(
            f"{table}: missing; VisA's split of {root.name} is in it. Keep the category's folder "
            "where the data set has it, beside split_csv"
        )
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not set(reader.fieldnames or ()) >= _VISA_COLUMNS:
            raise DataError(f"{table}: needs the columns {sorted(_VISA_COLUMNS)}")
        for row in reader:
            if row["object"] != root.name:
                continue
            path = root.parent / row["image"]
            mask = root.parent / row["mask"] if row["mask"] else None
            for needed in (path, mask):
                if needed is not None and not needed.is_file():
                    raise DataError(f"{table}, line {reader.line_num}: {needed} is missing")
            good = row["label"] == "normal"
            if row["split"] == "train":
                yield Sample(path, "train", GOOD)
            else:
                yield Sample(path, "test", GOOD if good else row["label"], mask)


def _class_folder(root: Path, folder: Path) -> Iterator[Sample]:
    """List the test images of one class, with their masks."""
    for path in _images(folder):
        yield Sample(path, "test", folder.name, _mask(root, folder.name, path))


def _mask(root: Path, defect: str, image: Path) -> Path | None:
    """Find the mask of a defective image. A class has masks for all of its images or for none."""
    folder = next((root / m / defect for m in _MASK_FOLDERS if (root / m / defect).is_dir()), None)
    if defect == GOOD or folder is None:
        return None
    for stem in (f"{image.stem}_mask", image.stem):
        for suffix in sorted(IMAGE_SUFFIXES):
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    raise DataError(f"{image}: no mask {folder / image.stem}_mask.png, though its class has masks")


def _images(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _other_files(folder: Path) -> list[Path]:
    """List what is no image; tables such as groups.csv and hidden files go without saying."""
    known = {*IMAGE_SUFFIXES, ".csv"}
    return [
        path
        for path in _files(folder)
        if path.suffix.lower() not in known and not path.name.startswith(".")
    ]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file())


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


LAYOUTS = (
    Layout("visa", ("Data/Images",), _visa),
    Layout("dagm", ("Train/Label", "Test/Label"), _dagm),
    Layout("mvtec", ("train/good", "test"), _mvtec),
    Layout("plain", ("good",), _plain),
    Layout("folder", (".",), _folder),
)
