"""Where images are found, how they are split and how batches are made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusionad_training.config import AugmentationConfig, Config
from diffusionad_training.config.settings import changed
from diffusionad_training.data import groups, layout
from diffusionad_training.data.batches import TrainingBatches, jitter
from diffusionad_training.data.digest import digest
from diffusionad_training.data.images import load_all, load_mask
from diffusionad_training.data.split import hold_out
from diffusionad_training.errors import DataError


def images(count: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_a_plain_folder_of_images_trains(tmp_path: Path) -> None:
    Image.fromarray(images(1)[0]).save(tmp_path / "a.png")
    assert [path.name for path in layout.read(tmp_path).require_train()] == ["a.png"]


def test_train_good_goes_before_the_folder_itself(tiny_data: Path) -> None:
    found = layout.read(tiny_data).require_train()
    assert len(found) == 10
    assert found[0].relative_to(tiny_data).as_posix() == "train/good/000.png"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        layout.read(tmp_path / "nowhere").require_train()


def test_a_folder_without_images_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="put them into this folder"):
        layout.read(tmp_path).require_train()


def test_test_images_know_their_class_and_mask(tiny_data: Path) -> None:
    found = layout.read(tiny_data).require_test()
    assert [image.defect for image in found] == ["good"] * 3 + ["spot"] * 3
    assert all(image.mask is None for image in found[:3])
    assert [image.mask.name for image in found[3:] if image.mask][0] == "000_mask.png"


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    for name in ("train/good/a", "train/good/b", "train/good/c", "test/good/d"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images(1)[0]).save(path)
    return tmp_path


def write_groups(root: Path, rows: str, encoding: str = "utf-8") -> None:
    (root / groups.GROUPS_FILE).write_text(f"path,group\n{rows}", encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_groups_come_from_the_table(grouped: Path, encoding: str) -> None:
    rows = "train/good/a.png,7\ntrain/good/b.png,7\ntrain/good/c.png,8\ntest/good/d.png,8\n"
    write_groups(grouped, rows, encoding)
    grouping = groups.grouping(layout.read(grouped))
    assert grouping.groups == ["7", "7", "8"]
    assert grouping.trainable() == [0, 1]  # c shows the part that d shows


def test_without_a_table_every_image_is_a_group(grouped: Path) -> None:
    grouping = groups.grouping(layout.read(grouped))
    assert len(set(grouping.groups)) == 3
    assert grouping.trainable() == [0, 1, 2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("train/good/a.png,7\n", "does not name 2 images, the first 'train/good/b.png'"),
        ("train/good/a.png\n", "line 2: a path or group is missing"),
        ("train/good/a.png,7\ntrain/good/a.png,8\n", "line 3: train/good/a.png is in group 8 and"),
    ],
)
def test_a_table_of_groups_that_is_wrong_is_refused(grouped: Path, rows: str, message: str) -> None:
    write_groups(grouped, rows)
    with pytest.raises(DataError, match=message):
        groups.grouping(layout.read(grouped))


def test_a_missing_mask_of_a_class_with_masks_is_named(tmp_path: Path) -> None:
    for name in ("test/hole/a.png", "test/hole/b.png", "ground_truth/hole/a_mask.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images(1)[0]).save(path)
    with pytest.raises(DataError, match=r"b\.png: no mask"):
        layout.read(tmp_path).require_test()


def test_a_class_may_have_no_masks_at_all(tmp_path: Path) -> None:
    path = tmp_path / "test" / "hole" / "a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(images(1)[0]).save(path)
    assert layout.read(tmp_path).require_test()[0].mask is None


def test_a_broken_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"mask\.png"):
        load_mask(tmp_path / "mask.png", 64)


def test_the_digest_sees_names_and_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    first = digest(tmp_path, [path])
    path.write_bytes(b"2")
    second = digest(tmp_path, [path])
    renamed = path.rename(tmp_path / "b.png")
    assert len({first, second, digest(tmp_path, [renamed])}) == 3


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


def test_a_large_group_does_not_carry_half_the_images_away() -> None:
    groups = ["big"] * 280 + ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    for seed in range(10):
        assert 10 <= len(hold_out(groups, 0.05, seed)) <= 20


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


def test_anomalies_at_random_make_batches_of_any_share(tiny_config: Config) -> None:
    config = changed(tiny_config, {"optimisation.synthetic_at_random": True})
    batches = TrainingBatches(images(5), None, config, count=60, seed=0)
    drawn = [batches[index] for index in range(60)]
    counts = [int(batch["anomalous"].sum()) for batch in drawn]
    assert set(counts) == {0, 1, 2, 3, 4}
    assert sum(counts) / (60 * 4) == pytest.approx(0.5, abs=0.1)
    for batch in drawn[:10]:
        found = batch["masks"].flatten(1).amax(dim=1) > 0
        assert found.tolist() == batch["anomalous"].tolist()


def test_a_batch_depends_on_seed_and_index_alone(tiny_config: Config) -> None:
    first = TrainingBatches(images(5), None, tiny_config, count=4, seed=0)
    again = TrainingBatches(images(5), None, tiny_config, count=4, seed=0)
    again[0]  # another order of asking changes nothing
    assert torch.equal(first[3]["images"], again[3]["images"])
    other = TrainingBatches(images(5), None, tiny_config, count=4, seed=1)
    assert not torch.equal(first[3]["images"], other[3]["images"])


def test_every_image_is_seen_equally_often(tiny_config: Config) -> None:
    flat = np.stack([np.full((64, 64, 3), 20 * k, np.uint8) for k in range(5)])
    batches = TrainingBatches(flat, None, tiny_config, count=10, seed=0)  # 4 a batch: 8 epochs
    seen = [int(image[0, 0, 0]) for batch in batches for image in batch["clean"]]
    assert {level: seen.count(level) for level in set(seen)} == {20 * k: 8 for k in range(5)}
    assert seen[:5] != seen[5:10]  # shuffled anew


def test_clean_images_are_those_without_their_anomaly(tiny_config: Config) -> None:
    batch = TrainingBatches(images(5), None, tiny_config, count=1, seed=0)[0]
    same = (batch["images"] == batch["clean"]).all(dim=-1)
    assert same[:2].all()
    assert not same[2:].flatten(1).all(dim=1).any()
    outside = batch["masks"][:, 0] == 0
    assert same[outside].all()


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
