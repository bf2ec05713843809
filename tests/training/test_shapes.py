"""Training holds at the edges: the smallest batches, the deepest levels, larger images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from demo_product import SHALLOW

from diffusionad_client.cli import main
from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.data.batches import TrainingBatches
from diffusionad_training.fit.module import TrainingModule

DEEP = 32  # pixels a side, and the stride of both networks: their deepest maps are 1 x 1


@pytest.fixture(scope="module")
def deep(tiny_config: Config) -> Config:
    return changed(
        tiny_config,
        {
            "size": DEEP,
            "noise_network.multipliers": (1, 1, 1, 1),
            "noise_network.attention_levels": (3,),
            "segmentation_network.widths": (8, 8, 8, 8, 8),
        },
    )


@pytest.mark.parametrize("restoration_weight", [0.0, 1.0])
@pytest.mark.parametrize("all_synthetic", [False, True])
@pytest.mark.parametrize("batch", [2, 3, 4, 5])
def test_no_loss_is_nan_however_small_the_batch(
    deep: Config, batch: int, all_synthetic: bool, restoration_weight: float
) -> None:
    assert deep.detector.stride == DEEP
    half = batch // 2
    config = changed(
        deep,
        {
            "loss.restoration_weight": restoration_weight,
            "optimisation.normal_per_batch": batch - half,
            "optimisation.synthetic_per_batch": half,
        },
    )
    images = np.random.default_rng(0).integers(0, 256, (4, DEEP, DEEP, 3), dtype=np.uint8)
    batches = TrainingBatches(images, None, config, count=3, seed=0)
    torch.manual_seed(0)
    module = TrainingModule(config, seed=0)
    optimiser = torch.optim.Adam(module.model.parameters(), lr=1e-3)
    for made in batches:
        if all_synthetic:
            made["anomalous"][:] = True
        noise_loss, mask_loss = module.joint_loss(made)
        assert torch.isfinite(noise_loss)
        assert torch.isfinite(mask_loss)
        assert (noise_loss == 0) == (all_synthetic and restoration_weight == 0)
        optimiser.zero_grad()
        (noise_loss + mask_loss).backward()
        optimiser.step()
    state = module.model.state_dict().values()
    assert all(torch.isfinite(tensor).all() for tensor in state)


@pytest.mark.slow
def test_larger_images_train_and_evaluate(tiny_data: Path, tmp_path: Path) -> None:
    run, measured = tmp_path / "run", tmp_path / "measured.json"
    arguments = ["train", str(tiny_data), "--output", str(run), "--image-size", "384"]
    few = ["--steps", "1", "--batch", "2", "--workers", "0", "--foreground", "none", *SHALLOW]
    result = CliRunner().invoke(main, [*arguments, *few])
    assert result.exit_code == 0, result.output
    evaluated = ["evaluate", str(tiny_data), "--run", str(run), "--output", str(measured)]
    result = CliRunner().invoke(main, evaluated)
    assert result.exit_code == 0, result.output
    assert json.loads(measured.read_text())
    assert np.load(run / "held_out.npz")["images"].shape[1:] == (384, 384, 3)
