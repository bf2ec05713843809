"""A tiny detector and a tiny data set, trained in seconds."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionad_training.config import (
    Config,
    DetectorConfig,
    GuidanceConfig,
    NoiseNetworkConfig,
    OptimisationConfig,
    SegmentationNetworkConfig,
    SynthesisConfig,
    TrainingConfig,
)
from diffusionad_training.fit import train
from diffusionad_training.fit.plan import TrainingPlan

SIZE = 64


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return Config(
        preset="tiny",
        detector=DetectorConfig(
            size=SIZE,
            guidance=GuidanceConfig(last_step=600),
            noise_network=NoiseNetworkConfig(
                base_channels=32,
                multipliers=(1, 2),
                blocks=1,
                attention_levels=(1,),
                unshuffle=4,
                parametrisation="x0",
            ),
            segmentation_network=SegmentationNetworkConfig(widths=(8, 16), unshuffle=2),
        ),
        training=TrainingConfig(
            synthesis=SynthesisConfig(
                texture_share=0, self_share=0.5, procedural_share=0.5, stroke_share=0.5
            ),
            optimisation=OptimisationConfig(
                normal_per_batch=2,
                synthetic_per_batch=2,
                steps=6,
                noise_learning_rate=1e-3,
                segmentation_learning_rate=1e-3,
                warmup_steps=2,
                cosine_decay=True,
                ema_decay=0.9,
                gradient_clip=1.0,
            ),
        ),
    )


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Striped grey plates; the defective ones have a bright square. MVTec's layout."""
    root = tmp_path_factory.mktemp("data") / "plates"
    rng = np.random.default_rng(0)

    def plate() -> np.ndarray:
        stripes = 110 + 20 * np.sin(np.arange(80) / 3 + rng.uniform(0, 6))
        noisy = stripes[None] + rng.normal(0, 4, (80, 80))
        return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)

    def save(array: np.ndarray, *parts: str) -> None:
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    for index in range(10):
        save(plate(), "train", "good", f"{index:03d}.png")
    for index in range(3):
        save(plate(), "test", "good", f"{index:03d}.png")
        defective, mask = plate(), np.zeros((80, 80), np.uint8)
        y, x = rng.integers(5, 60, size=2)
        defective[y : y + 14, x : x + 14] = 240
        mask[y : y + 14, x : x + 14] = 255
        save(defective, "test", "spot", f"{index:03d}.png")
        save(mask, "ground_truth", "spot", f"{index:03d}_mask.png")
    return root


@pytest.fixture(scope="session")
def tiny_run(
    tiny_data: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("runs") / "plates"
    train.train(TrainingPlan(tiny_data, output, tiny_config, held_out_share=0.3, workers=0, seed=3))
    return output


@pytest.fixture
def copied_run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "copy")
