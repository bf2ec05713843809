"""What the public data sets hold, as their authors publish it: images by category and kind.

    MVTec AD        Bergmann et al., CVPR 2019, table 1
    VisA            Zou et al., ECCV 2022; the table of amazon-science/spot-diff
    DAGM 2007       the competition's page: 1,000 or 2,000 good and 150 or 300 defective images
    MPDD            Jezek et al., ICUMT 2021, table 1
    magnetic tile   Huang et al., 2018; the folders of the authors' repository

None stands for a number that is not published. A mask belongs to each
defective image of MVTec AD, VisA and MPDD, so its number is known as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Counts = Mapping[str, int | None]  # by kind of image, in the order in which they are printed
Form = Literal["mvtec", "visa", "dagm", "tile"]  # how a category's folder is laid out


@dataclass(frozen=True)
class PublishedSet:
    """One data set: where it comes from, and what each of its categories holds."""

    title: str
    source: str  # where to fetch it from
    form: Form
    categories: Mapping[str, Counts]  # by the name of the category's folder


def _mvtec(train: int, good: int, defective: int, classes: int | None = None) -> Counts:
    return {
        "train/good": train,
        "test/good": good,
        "test, defective": defective,
        "classes of defects": classes,
        "masks": defective,
    }


def _visa(normal: int) -> Counts:
    return {
        "Normal": normal,
        "Anomaly": 100,
        "masks": 100,
        "rows of 1cls.csv": normal + 100,
    }


def _dagm(half: int, defective: int) -> Counts:
    # How many of the defective ones are in either half is not published.
    return {"Train": half, "Test": half, "labels": defective, "labels of Test": None}


SETS = (
    PublishedSet(
        "MVTec AD",
        "https://www.mvtec.com/company/research/datasets/mvtec-ad",
        "mvtec",
        {
            "bottle": _mvtec(209, 20, 63, 3),
            "cable": _mvtec(224, 58, 92, 8),
            "capsule": _mvtec(219, 23, 109, 5),
            "carpet": _mvtec(280, 28, 89, 5),
            "grid": _mvtec(264, 21, 57, 5),
            "hazelnut": _mvtec(391, 40, 70, 4),
            "leather": _mvtec(245, 32, 92, 5),
            "metal_nut": _mvtec(220, 22, 93, 4),
            "pill": _mvtec(267, 26, 141, 7),
            "screw": _mvtec(320, 41, 119, 5),
            "tile": _mvtec(230, 33, 84, 5),
            "toothbrush": _mvtec(60, 12, 30, 1),
            "transistor": _mvtec(213, 60, 40, 4),
            "wood": _mvtec(247, 19, 60, 5),
            "zipper": _mvtec(240, 32, 119, 7),
        },
    ),
    PublishedSet(
        "VisA",
        "https://github.com/amazon-science/spot-diff",
        "visa",
        {
            "candle": _visa(1000),
            "capsules": _visa(602),
            "cashew": _visa(500),
            "chewinggum": _visa(503),
            "fryum": _visa(500),
            "macaroni1": _visa(1000),
            "macaroni2": _visa(1000),
            "pcb1": _visa(1004),
            "pcb2": _visa(1001),
            "pcb3": _visa(1006),
            "pcb4": _visa(1005),
            "pipe_fryum": _visa(500),
        },
    ),
    PublishedSet(
        "DAGM 2007",
        "https://zenodo.org/records/12750201",
        "dagm",
        {
            **{f"Class{number}": _dagm(575, 150) for number in range(1, 7)},
            **{f"Class{number}": _dagm(1150, 300) for number in range(7, 11)},
        },
    ),
    PublishedSet(
        "MPDD",
        "https://github.com/stepanje/MPDD",
        "mvtec",
        {
            "bracket_black": _mvtec(289, 32, 47),
            "bracket_brown": _mvtec(185, 26, 51),
            "bracket_white": _mvtec(110, 30, 30),
            "connector": _mvtec(128, 30, 14),
            "metal_plate": _mvtec(54, 26, 71),
            "tubes": _mvtec(122, 32, 69),
        },
    ),
    PublishedSet(
        "Magnetic Tile Defect",
        "https://github.com/abin24/Magnetic-tile-defect-datasets.",
        "tile",
        {
            "MT_Free": {"images": 952, "masks": None},
            "MT_Blowhole": {"images": 115, "masks": 115},
            "MT_Break": {"images": 85, "masks": 85},
            "MT_Crack": {"images": 57, "masks": 57},
            "MT_Fray": {"images": 32, "masks": 32},
            "MT_Uneven": {"images": 103, "masks": 103},
        },
    ),
)
