"""Where images are found, how they are split and how batches are made of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusionad_training.config import AugmentationConfig, Config
from diffusionad_training.data import layout
from diffusionad_training.data.batches import TrainingBatches, jitter
from diffusionad_training.data.images import load_all, load_mask
from diffusionad_training.data.split import hold_out
from diffusionad_training.errors import DataError


def images(count: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_a_plain_folder_of_images_trains(tmp_path: Path) -> None:
    Image.fromarray(images(1)[0]).save(tmp_path / "a.png")
    assert [path.name for path in layout.training_images(tmp_path)] == ["a.png"]


def test_train_good_goes_before_the_folder_itself(tiny_data: Path) -> None:
    found = layout.training_images(tiny_data)
    assert len(found) == 10
    assert found[0].relative_to(tiny_data).as_posix() == "train/good/000.png"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        layout.training_images(tmp_path / "nowhere")


def test_a_folder_without_images_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="put the good images into this folder"):
        layout.training_images(tmp_path)


def test_test_images_know_their_class_and_mask(tiny_data: Path) -> None:
    found = layout.test_images(tiny_data)
    assert [image.defect for image in found] == ["good"] * 3 + ["spot"] * 3
    assert all(image.mask is None for image in found[:3])
    assert [image.mask.name for image in found[3:] if image.mask][0] == "000_mask.png"


def test_groups_come_from_the_table(tmp_path: Path) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(images(1)[0]).save(good / f"{name}.png")
    table = tmp_path / layout.GROUPS_FILE
    table.write_text("path,group\ntrain/good/a.png,7\ntrain/good/b.png,7\n")
    found = layout.training_images(tmp_path)
    assert layout.groups(tmp_path, found) == ["7", "7"]
    table.write_text("path,group\ntrain/good/a.png,7\n")
    with pytest.raises(DataError, match=r"does not name 1 images, the first 'train/good/b.png'"):
        layout.groups(tmp_path, found)


def test_the_digest_sees_names_and_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    first = layout.digest(tmp_path, [path])
    path.write_bytes(b"2")
    second = layout.digest(tmp_path, [path])
    renamed = path.rename(tmp_path / "b.png")
    assert len({first, second, layout.digest(tmp_path, [renamed])}) == 3


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60),
    st.floats(min_value=0.05, max_value=0.9),
    st.integers(min_value=0, max_value=99),
)
def test_no_group_is_on_both_sides(groups: list[str], share: float, seed: int) -> None:
    held = set(hold_out(groups, share, seed))
    kept = set(range(len(groups))) - held
    assert not {groups[i] for i in held} & {groups[i] for i in kept}
    assert kept
    assert bool(held) == (len(set(groups)) > 1)


def test_about_the_share_asked_for_is_held_out() -> None:
    groups = [str(index) for index in range(200)]
    assert len(hold_out(groups, 0.15, 0)) == 30
    assert hold_out(groups, 0.15, 0) != hold_out(groups, 0.15, 1)


def test_every_bad_image_is_named(tmp_path: Path) -> None:
    Image.fromarray(images(1)[0]).save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    paths = sorted(tmp_path.glob("*.png"))
    with pytest.raises(DataError, match=r"(?s)2 of 3 images.*empty\.png.*text\.png"):
        load_all(paths, 64)


def test_masks_of_zeros_and_ones_are_masks(tmp_path: Path) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:64] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    loaded = load_mask(tmp_path / "mask.png", 64)
    assert loaded.dtype == bool
    assert loaded[:32].all()
    assert not loaded[32:].any()


def test_batches_hold_their_shares_exactly(tiny_config: Config) -> None:
    batches = TrainingBatches(images(5), None, tiny_config, count=4, seed=0)
    batch = batches[2]
    assert batch["images"].shape == (4, 64, 64, 3)
    assert batch["images"].dtype == torch.uint8
    assert batch["anomalous"].tolist() == [False, False, True, True]
    assert (batch["masks"].flatten(1).amax(dim=1) > 0).tolist() == [False, False, True, True]


def test_a_batch_depends_on_seed_and_index_alone(tiny_config: Config) -> None:
    first = TrainingBatches(images(5), None, tiny_config, count=4, seed=0)
    again = TrainingBatches(images(5), None, tiny_config, count=4, seed=0)
    again[0]  # another order of asking changes nothing
    assert torch.equal(first[3]["images"], again[3]["images"])
    other = TrainingBatches(images(5), None, tiny_config, count=4, seed=1)
    assert not torch.equal(first[3]["images"], other[3]["images"])


def test_every_image_is_seen_equally_often(tiny_config: Config) -> None:
    plain = dataclasses.replace(
        tiny_config,
        optimisation=dataclasses.replace(
            tiny_config.optimisation, normal_per_batch=4, synthetic_per_batch=1
        ),
    )
    flat = np.stack([np.full((64, 64, 3), 20 * k, np.uint8) for k in range(5)])
    batches = TrainingBatches(flat, None, plain, count=20, seed=0)
    # Corners, where anomalies rarely lie, tell the images apart; a batch of 5 is one epoch.
    seen = [sorted(batches[k]["images"][:4, 0, 0, 0].tolist()) for k in range(20)]
    assert all(len(set(four)) == 4 for four in seen)


def test_batches_end(tiny_config: Config) -> None:
    batches = TrainingBatches(images(5), None, tiny_config, count=2, seed=0)
    assert len(list(batches)) == 2


def test_jitter_without_settings_changes_nothing() -> None:
    image = images(1)[0]
    assert (jitter(image, AugmentationConfig(), np.random.default_rng(0)) == image).all()


def test_jitter_varies_the_lighting_of_the_whole_image() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    config = AugmentationConfig(brightness=0.1, contrast=0.1)
    levels = {int(jitter(image, config, np.random.default_rng(k))[0, 0, 0]) for k in range(20)}
    assert len(levels) > 10
    assert all(abs(level - 100) <= 26 + 3 for level in levels)
