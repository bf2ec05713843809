"""Find the images of a data set on disk.

    DATA/train/good/*          good parts to train on     (MVTec AD's layout)
    DATA/test/good/*           good parts to test on
    DATA/test/<class>/*        defective parts, one folder a class
    DATA/ground_truth/<class>/<stem>_mask.png    where the defect is, optional
    DATA/groups.csv            optional, columns path,group: exposures of one part

A plain folder of good images, or one with a `good/` in it, trains as well.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from diffusionad_client.images import IMAGE_SUFFIXES
from diffusionad_training.errors import DataError

GOOD = "good"
GROUPS_FILE = "groups.csv"


@dataclass(frozen=True)
class TestImage:
    """One image to test on, with what is known of it."""

    path: Path
    defect: str  # the class's folder; `good` for good parts
    mask: Path | None  # None for good parts and where there is no ground truth

    @property
    def is_defective(self) -> bool:
        """Whether the part should be rejected."""
        return self.defect != GOOD


def training_images(root: Path) -> list[Path]:
    """List the good images to train on, sorted. Raises `DataError` if there are none."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of images")
    candidates = (root / "train" / GOOD, root / GOOD, root)
    folder = next(folder for folder in candidates if folder.is_dir())
    images = _images(folder)
    if not images:
        raise DataError(
            f"{folder}: no images here (looked for {', '.join(sorted(IMAGE_SUFFIXES))}); put the "
            "good images into this folder, or into train/good in it"
        )
    return images


def test_images(root: Path) -> list[TestImage]:
    """List the test images of every class, sorted. Raises `DataError` if there are none."""
    folder = root / "test"
    if not folder.is_dir():
        raise DataError(f"{root}: no folder `test` with one folder a class, `good` among them")
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [
        TestImage(path, klass.name, _mask(root, klass.name, path))
        for klass in classes
        for path in _images(klass)
    ]
    if not found:
        raise DataError(f"{folder}: no images in its folders {[c.name for c in classes]}")
    return found


@dataclass(frozen=True)
class Grouping:
    """Which images show the same part, so that it stays on one side of every split."""

    groups: list[str]  # of each training image
    in_test: frozenset[str]  # groups that the test set has images of

    def trainable(self) -> list[int]:
        """Indices of the training images whose group is not in the test set."""
        return [i for i, group in enumerate(self.groups) if group not in self.in_test]


def grouping(root: Path, images: list[Path]) -> Grouping:
    """Group training images by groups.csv where there is one; else each is a group of its own.

    Raises `DataError` if groups.csv is malformed or does not name an image.
    """
    names = [path.relative_to(root).as_posix() for path in images]
    table = root / GROUPS_FILE
    if not table.is_file():
        return Grouping(names, frozenset())
    group_of = _read_groups(table)
    missing = [name for name in names if name not in group_of]
    if missing:
        raise DataError(f"{table}: does not name {len(missing)} images, the first {missing[0]!r}")
    in_test = {group for name, group in group_of.items() if name.startswith("test/")}
    return Grouping([group_of[name] for name in names], frozenset(in_test))


def _read_groups(table: Path) -> dict[str, str]:
    group_of: dict[str, str] = {}
    try:
        # With or without the byte-order mark that spreadsheets write.
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"path", "group"} <= set(reader.fieldnames or ()):
                raise DataError(f"{table}: needs the columns path,group; has {reader.fieldnames}")
            for row in reader:
                path, group = row["path"], row["group"]
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


def digest(root: Path, images: list[Path]) -> str:
    """SHA-256 over the relative paths and contents of images, to tell data sets apart."""
    total = hashlib.sha256()
    for path in images:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
    )


def _mask(root: Path, defect: str, image: Path) -> Path | None:
    """Find the mask of a defective image. A class has masks for all of its images or for none."""
    folder = root / "ground_truth" / defect
    if defect == GOOD or not folder.is_dir():
        return None
    for stem in (f"{image.stem}_mask", image.stem):
        for suffix in sorted(IMAGE_SUFFIXES):
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    raise DataError(f"{image}: no mask {folder / image.stem}_mask.png, though its class has masks")
