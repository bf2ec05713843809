"""Trainings begin on windows of the images, and end on whole ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.data.batches import Batch, TrainingBatches
from diffusionad_training.errors import ConfigError
from diffusionad_training.fit import train
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.method.restoration import TrainingImages
from diffusionad_training.synthesis.anomalies import Anomaly, AnomalySynthesiser
from diffusionad_training.synthesis.windows import choose_window

sides = st.integers(min_value=4, max_value=32)
seeds = st.integers(min_value=0, max_value=2**32 - 1)


@pytest.fixture
def cropping(tiny_config: Config) -> Config:
    return changed(tiny_config, {"optimisation.crop_side": 32, "optimisation.crop_share": 0.5})


@given(sides, seeds)
def test_a_window_lies_in_the_image(side: int, seed: int) -> None:
    rows, columns = choose_window((32, 32), (side, side), np.random.default_rng(seed))
    for window in (rows, columns):
        assert 0 <= window.start < window.stop <= 32
        assert window.stop - window.start == side


@given(sides, seeds, st.integers(0, 31), st.integers(0, 31))
def test_a_window_has_the_product_in_it(side: int, seed: int, y: int, x: int) -> None:
    foreground = np.zeros((32, 32), dtype=bool)
    foreground[y, x] = True
    window = choose_window((32, 32), (side, side), np.random.default_rng(seed), foreground)
    assert foreground[window].any()
    assert foreground[window].shape == (side, side)


def test_the_edges_of_images_are_seen() -> None:
    rng = np.random.default_rng(0)
    tops = [choose_window((256, 256), (128, 128), rng)[0].start for _ in range(400)]
    for edge in (0, 128):
        assert 0.15 < np.mean([top == edge for top in tops]) < 0.35


def windows_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The images (N, 3, h, w) and masks (N, 1, h, w) that are trained on."""
    corners = [(int(top), int(left)) for top, left in batch["corners"]]
    pictures = batch["images"].permute(0, 3, 1, 2)
    whole = TrainingImages(
        pictures,
        pictures,
        batch["masks"],
        batch["anomalous"],
        batch["misplaced"],
        corners,
        int(batch["side"]),
    )
    return whole.windows.x0, whole.windows.masks


def test_anomalies_in_crops_are_as_large_as_in_whole_images(
    cropping: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((5, 64, 64, 3), dtype=np.uint8)

    def corner(self: AnomalySynthesiser, image: np.ndarray, *_: object) -> Anomaly:
        mask = np.zeros((64, 64), dtype=np.float32)
        mask[60:, 60:] = 1
        changed = np.where(mask[..., None] > 0, 200, image).astype(np.uint8)
        return Anomaly(changed, mask, misplaced=False)

    monkeypatch.setattr(AnomalySynthesiser, "synthesise", corner)
    batch = TrainingBatches(images, None, cropping, count=8, seed=0)[0]
    images, masks = windows_of(batch)
    assert images.shape[2:] == (32, 32)
    assert (images[batch["anomalous"]][..., -4:, -4:] == 200).all()
    assert (masks.flatten(1).sum(1) == 4 * 4 * batch["anomalous"]).all()


def test_crops_come_first_and_whole_images_last(cropping: Config) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    textures = images[::-1]
    config = changed(cropping, {"synthesis.texture_share": 1.0})
    batches = TrainingBatches(images, textures, config, count=8, seed=0)
    sides = [int(batch["side"]) for batch in map(batches.__getitem__, range(8))]
    assert sides == [*([32] * 4), *([64] * 4)]
    _, masks = windows_of(batches[0])
    assert masks.shape == (4, 1, 32, 32)
    assert (masks[batches[0]["anomalous"]].flatten(1).sum(1) > 0).all()


@pytest.mark.parametrize("count", [1, 5])
def test_the_last_batch_of_the_shortest_training_is_whole(cropping: Config, count: int) -> None:
    config = changed(cropping, {"optimisation.crop_share": 0.95})
    images = np.zeros((5, 64, 64, 3), dtype=np.uint8)
    batches = TrainingBatches(images, None, config, count=count, seed=0)
    assert batches[count - 1]["side"] == 64


def test_a_training_that_ends_by_time_leaves_the_crops_in_time(cropping: Config) -> None:
    images = np.zeros((5, 64, 64, 3), dtype=np.uint8)
    progress = torch.zeros(()).share_memory_()
    batches = TrainingBatches(images, None, cropping, count=1000, seed=0, progress=progress)
    assert batches[3]["side"] == 32
    progress.fill_(0.5)
    assert batches[3]["side"] == 64


def test_a_crop_that_the_networks_cannot_halve_is_refused(tiny_config: Config) -> None:
    for side, said in ((20, "a multiple of 8, the stride of Noise"), (96, "at most the size")):
        with pytest.raises(ConfigError, match=rf"crop_side \({side}\) must be {said}"):
            changed(tiny_config, {"optimisation.crop_side": side})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_trains_on_crops(
    workers: int, cropping: Config, tiny_data: Path, tmp_path: Path
) -> None:
    module = train.train(
        TrainingPlan(
            tiny_data,
            tmp_path / "run",
            cropping,
            workers=workers,
            time_budget=60,
            checkpoint_steps=2,
        )
    )
    assert module.step == cropping.training.optimisation.steps
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 3
