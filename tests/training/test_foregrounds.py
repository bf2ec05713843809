"""Where the product is: estimated from pictures, read from masks, and where anomalies then lie."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusionad_training.config import Config, SynthesisConfig
from diffusionad_training.config.settings import changed
from diffusionad_training.data import foregrounds
from diffusionad_training.data.batches import TrainingBatches
from diffusionad_training.errors import DataError
from diffusionad_training.synthesis.anomalies import AnomalySynthesiser
from diffusionad_training.synthesis.masks import moved_onto

SIZE = 64


def part(rng: np.random.Generator, *, ground: int, product: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc with a bright hole, somewhere on an uneven ground; and where it is."""
    y, x = np.ogrid[:SIZE, :SIZE]
    cy, cx = rng.uniform(24, 40, size=2)
    disc = (y - cy) ** 2 + (x - cx) ** 2 < 14**2
    hole = (y - cy) ** 2 + (x - cx) ** 2 < 4**2
    image = ground + 8 * (x / SIZE) + rng.normal(0, 2, (SIZE, SIZE))
    image[disc & ~hole] = product + rng.normal(0, 10, (SIZE, SIZE))[disc & ~hole]
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), disc


@pytest.mark.parametrize(("ground", "product"), [(220, 90), (30, 160)], ids=["bright", "dark"])
def test_a_product_on_a_plain_ground_is_found_with_its_holes(ground: int, product: int) -> None:
    rng = np.random.default_rng(0)
    images, discs = zip(*(part(rng, ground=ground, product=product) for _ in range(8)), strict=True)
    masks = foregrounds.estimate(np.stack(images))
    assert masks is not None
    for mask, disc in zip(masks, discs, strict=True):
        assert mask[disc].all()
        assert mask.sum() < 1.4 * disc.sum()


def test_a_texture_has_no_foreground() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(60, 180, (8, SIZE, SIZE, 3), dtype=np.uint8)
    assert foregrounds.estimate(images) is None


def test_a_product_cut_off_by_the_border_has_no_foreground() -> None:
    images = np.full((8, SIZE, SIZE, 3), 220, np.uint8)
    images[:, :, : SIZE // 2] = 60
    assert foregrounds.estimate(images) is None


def test_an_empty_picture_among_many_counts_as_product_throughout() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([part(rng, ground=220, product=90)[0] for _ in range(20)])
    images[3] = 220
    masks = foregrounds.estimate(images)
    assert masks is not None
    assert masks[3].all()
    assert not masks[4].all()


def test_masks_are_found_by_path_or_by_name(tmp_path: Path) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:64] = 255
    (tmp_path / "train/good").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "train/good/a.png")
    Image.fromarray(mask).save(tmp_path / "b_mask.png")
    masks = foregrounds.load(
        tmp_path, [tmp_path / f"train/good/{name}.jpg" for name in "ab"], tmp_path, SIZE
    )
    assert masks.shape == (2, SIZE, SIZE)
    assert masks[:, : SIZE // 2].all()
    assert not masks[:, SIZE // 2 :].any()


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no foreground mask for 1 of 1 images, the first 'a\.png'"
    ):
        foregrounds.load(tmp_path, [tmp_path / "a.png"], tmp_path, SIZE)


def test_an_empty_mask_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"the foreground mask of 'a\.png' is empty"):
        foregrounds.load(tmp_path, [tmp_path / "a.png"], tmp_path, SIZE)


def test_odd_foreground_masks_are_named(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    Image.new("L", (10, 10), 1).save(tmp_path / "masks" / "a.PNG")
    lines: list[str] = []
    foregrounds.load(tmp_path / "masks", [tmp_path / "a.png"], tmp_path, SIZE, lines.append)
    assert lines == [
        "foreground masks that mark every pixel: a.PNG",
        "foreground masks of another size than their images, stretched over them: "
        "a.PNG (10 x 10, not 20 x 10)",
    ]


@given(st.integers(0, 2**32 - 1))
def test_a_mask_moved_onto_a_small_product_meets_it_and_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask, foreground = rng.random((2, 16, 16)) > 0.95
    mask[3, 4] = foreground[10, 9] = True
    moved = moved_onto(mask, foreground, rng)
    assert moved.any()
    assert not (moved & ~foreground).any()


@pytest.mark.parametrize("relocation", [0.0, 1.0])
def test_synthetic_anomalies_lie_on_the_product(relocation: float) -> None:
    rng = np.random.default_rng(0)
    image, disc = part(rng, ground=220, product=90)
    synthesiser = AnomalySynthesiser(
        SynthesisConfig(texture_share=0, stroke_share=0.5, relocation_share=relocation), None
    )
    masks = np.stack([synthesiser.synthesise(image, rng, disc)[1] > 0 for _ in range(30)])
    on_product = (masks & disc).sum((1, 2))
    assert (on_product > 0).all()
    # What is moved may hang over the edge; what is laid over the product may not.
    assert (2 * on_product >= masks.sum((1, 2))).all()
    if relocation == 0:
        assert not masks[:, ~disc].any()


def test_a_mirrored_image_has_its_foreground_mirrored_too(tiny_config: Config) -> None:
    image = np.full((1, SIZE, SIZE, 3), 220, np.uint8)
    foreground = np.zeros((1, SIZE, SIZE), dtype=bool)
    image[:, :16, :16], foreground[:, :16, :16] = 40, True
    config = changed(tiny_config, {"augmentation.flip": True})
    batches = TrainingBatches(image, None, config, count=12, seed=0, foregrounds=foreground)
    corners = set()
    for batch in batches:
        for clean, mask in zip(batch["clean"], batch["masks"][:, 0], strict=True):
            product = (clean[..., 0] < 100).numpy()
            corners.add(tuple(np.argwhere(product)[0]))
            assert not (mask.numpy().astype(bool) & ~product).any()
    assert len(corners) == 4
