"""The demo set on disk, in MVTec's layout.

    OUTPUT/train/good/000.png
    OUTPUT/test/good/000.png
    OUTPUT/test/<defect>/000.png
    OUTPUT/ground_truth/<defect>/000_mask.png     0 or 255

Every picture has a random generator of its own, seeded by the set's seed, the
picture's folder and its number. So a picture never depends on how many others
are made, and a new defect class leaves all others as they were.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffusionad_client.errors import DiffusionADError
from diffusionad_client.files import refusal
from diffusionad_tools.demo_data import products
from diffusionad_tools.demo_data.defects import Mask
from diffusionad_tools.demo_data.product import DEFAULT, Product
from diffusionad_tools.demo_data.rendering import Picture, photograph, render_scene

GOOD = "good"
SIZES = (64, 2048)  # pixels; below, the holes are smaller than a pixel


class DemoDataError(DiffusionADError):
    """The demo images cannot be made as asked, or not be written there."""


@dataclass(frozen=True)
class Item:
    """One picture's place in the set."""

    split: str  # train or test
    label: str  # good, or the name of a defect
    number: int

    @property
    def picture_path(self) -> Path:
        """Where the picture lies in the set."""
        return Path(self.split, self.label, f"{self.number:03d}.png")

    @property
    def mask_path(self) -> Path:
        """Where the mask of a defective picture lies in the set."""
        return Path("ground_truth", self.label, f"{self.number:03d}_mask.png")

    def generator(self, seed: int) -> np.random.Generator:
        """The source of all that is random in this picture."""
        folder = zlib.crc32(f"{self.split}/{self.label}".encode())
        return np.random.default_rng([seed, folder, self.number])


@dataclass(frozen=True, kw_only=True)
class DemoSet:
    """How many pictures of each kind, of what, how large, and the seed they follow from."""

    train: int = 200
    test_good: int = 40
    defective: int = 15  # of each class
    size: int = 320  # pixels; pictures are square
    seed: int = 0
    product: Product = DEFAULT

    def __post_init__(self) -> None:
        if min(self.train, self.test_good, self.defective, self.seed) < 0:
            raise DemoDataError(f"numbers of pictures and the seed cannot be negative: {self}")
        if len(self) == 0:
            raise DemoDataError(f"there is nothing to make: {self}; ask for at least one picture")
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise DemoDataError(f"size ({self.size}) must lie in [{SIZES[0]}, {SIZES[1]}] pixels")

    def __len__(self) -> int:
        """Number of pictures, masks not counted."""
        return self.train + self.test_good + self.defective * len(products.defects(self.product))

    def __iter__(self) -> Iterator[Item]:
        """All pictures of the set, in the order of writing."""
        yield from (Item("train", GOOD, number) for number in range(self.train))
        yield from (Item("test", GOOD, number) for number in range(self.test_good))
        for defect in products.defects(self.product):
            yield from (Item("test", defect, number) for number in range(self.defective))


def draw(
    item: Item, *, size: int, seed: int, product: Product = DEFAULT
) -> tuple[Picture, Mask | None]:
    """Make one picture, and its mask if it shows a defect."""
    rng = item.generator(seed)
    part = products.sample(product, rng, size)
    scene, mask = render_scene(part), None
    if item.label != GOOD:
        scene, mask = products.defects(product)[item.label](scene, part, rng)
    return photograph(scene, part), mask


def write(demo: DemoSet, output: Path, *, advance: Callable[[], None] = lambda: None) -> None:
    """Write the set to `output`, which must not exist or be an empty folder.

    The pictures are written aside, and the folder takes its name when all are
    there. `advance` is called after each picture. Raises `DemoDataError`.
    """
    output = output.absolute()
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise DemoDataError(
                f"{output}: exists and is not an empty folder; name a new one or remove it first"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as aside:
            root = Path(aside) / "set"
            for item in demo:
                picture, mask = draw(item, size=demo.size, seed=demo.seed, product=demo.product)
                _save(picture, root / item.picture_path)
                if mask is not None:
                    _save(np.where(mask, np.uint8(255), np.uint8(0)), root / item.mask_path)
                advance()
            root.rename(output)
    except OSError as exc:
        raise DemoDataError(
            f"{output}: the demo images cannot be written there: "
            f"{exc.filename or output}: {refusal(exc, output)}"
        ) from exc


def _save(pixels: Picture, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
