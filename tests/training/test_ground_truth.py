"""What ground truth says, and what is said about it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionad_training.data import layout
from diffusionad_training.evaluation.measure import Measured, measure
from diffusionad_training.evaluation.scorers import Scored

SIZE = 64
SQUARE = np.zeros((SIZE, SIZE), bool)
SQUARE[10:20, 30:40] = True


class Oracle:
    """Finds the square in every image that is not called good."""

    size = SIZE

    def score(self, paths):
        for path in paths:
            found = SQUARE * (path.parent.name != "good")
            yield Scored(float(found.max()), found.astype(np.float32))


def data(root: Path, masks: dict[str, Image.Image], good: int = 2) -> Path:
    for folder in ("test/good", "test/hole", "ground_truth/hole"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(good):
        Image.new("RGB", (SIZE, SIZE)).save(root / f"test/good/{index}.png")
    for name, mask in masks.items():
        Image.new("RGB", (SIZE, SIZE)).save(root / f"test/hole/{name}.png")
        mask.save(root / f"ground_truth/hole/{name}_mask.png")
    return root


def measured(root: Path) -> Measured:
    return measure(Oracle(), root, layout.read(root).require_test(), detector="oracle")


def marks(dtype: type[np.generic] = np.uint8, label: int = 255) -> Image.Image:
    return Image.fromarray((SQUARE * label).astype(dtype))


@pytest.mark.parametrize("label", [1, 100, 128])
def test_labels_of_16_bits_are_defects(tmp_path: Path, label: int) -> None:
    result = measured(data(tmp_path, {"a": marks(np.uint16, label)})).evaluation
    assert result.pixel_average_precision == pytest.approx(1.0)
    assert result.remarks == ()


def test_an_empty_mask_is_named_and_counts_no_good_pixels(tmp_path: Path) -> None:
    empty = Image.new("L", (SIZE, SIZE))
    result = measured(data(tmp_path, {"a": marks(), "b": empty})).evaluation
    assert result.pixel_average_precision == pytest.approx(1.0)
    assert result.by_class["hole"].without_mask == 1
    assert result.remarks == ("empty masks, taken for no masks: ground_truth/hole/b_mask.png",)


def test_full_and_misshapen_masks_are_named(tmp_path: Path) -> None:
    full = Image.new("L", (SIZE, SIZE), 255)
    masks = {"a": full, "b": marks().resize((128, 64), Image.Resampling.NEAREST)}
    assert measured(data(tmp_path, masks)).evaluation.remarks == (
        "masks that mark every pixel: ground_truth/hole/a_mask.png",
        "masks of another size than their images, stretched over them: "
        "ground_truth/hole/b_mask.png (128 x 64, not 64 x 64)",
    )


def test_only_good_images_leave_the_figures_undefined_and_it_is_said_why(tmp_path: Path) -> None:
    result = measured(data(tmp_path, {}, good=3)).evaluation
    assert set(result.metrics.values()) == {None}
    assert "all 3 test images that count are good; add defective ones" in result.remarks[0]


def test_only_defective_images_leave_image_figures_undefined(tmp_path: Path) -> None:
    result = measured(data(tmp_path, {"a": marks()}, good=0)).evaluation
    assert result.image_auroc is None
    assert result.pixel_auroc == pytest.approx(1.0)
    assert "all 1 test images that count are defective; add good ones" in result.remarks[0]


def test_defects_without_masks_leave_pixel_figures_undefined(tmp_path: Path) -> None:
    root = data(tmp_path, {"a": Image.new("L", (SIZE, SIZE))})
    result = measured(root).evaluation
    assert result.image_auroc == pytest.approx(1.0)
    assert result.remarks[0] == (
        "pixel figures are undefined: there are no masks of defective images that mark anything"
    )
