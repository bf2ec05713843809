"""The autoencoder that diffusion is compared with trains, is measured, and is not served."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from diffusionad_client.cli import main
from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.fit import train
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.run.checkpoint import load_run


@pytest.fixture(scope="module")
def run(tiny_data: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder") / "run"
    config = changed(tiny_config, {"restoration": "autoencoder"})
    train.train(TrainingPlan(tiny_data, folder, config, workers=0, checkpoint_steps=3))
    return folder


def test_it_is_measured_as_any_run(run: Path, tiny_data: Path) -> None:
    result = CliRunner().invoke(main, ["evaluate", str(tiny_data), "--run", str(run)])
    assert result.exit_code == 0, result.output
    assert "image AUROC" in result.output
    assert len(list((run / "samples").iterdir())) == 2


def test_its_noise_constant_has_no_part_in_the_answer(run: Path) -> None:
    model = load_run(run).model
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = model(images).score
        model.noise.zero_()
        assert torch.equal(model(images).score, before)


def test_it_has_no_other_way_to_denoise(run: Path, tiny_data: Path) -> None:
    arguments = ["evaluate", str(tiny_data), "--run", str(run), "--denoising", "small-step"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "an autoencoder has no noise to remove" in result.output


def test_it_is_not_exported(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", str(run), "--output", str(tmp_path / "bundle")])
    assert result.exit_code == 1
    assert "is for comparison only" in result.output
    assert not (tmp_path / "bundle").exists()
