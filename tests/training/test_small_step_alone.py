"""Without guidance (w = 0) the small step is all that is trained, computed and served."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from diffusionad_client.artifacts.bundle import read_bundle
from diffusionad_client.cli import main
from diffusionad_client.contract import NETWORK_STEPS, NOISY, NORMAL, PREDICTED_NOISE, Step
from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.evaluation.scorers import TorchScorer
from diffusionad_training.export.bundle import export
from diffusionad_training.export.graphs import export_step
from diffusionad_training.export.runtime import GraphChain
from diffusionad_training.fit import sample_sheet, train
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.footprint.cost import blank_batch, cost
from diffusionad_training.method import diffusion
from diffusionad_training.method.model import (
    DiffusionAD,
    NoisePrediction,
    Reconstruction,
)
from diffusionad_training.method.restoration import LARGE, SMALL
from diffusionad_training.run.checkpoint import load_run


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    return changed(tiny_config, {"guidance.weight": 0.0, "map_smoothing": 2.0})


@pytest.fixture(scope="module")
def run(tiny_data: Path, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-step") / "run"
    train.train(TrainingPlan(tiny_data, folder, config, workers=0, checkpoint_steps=3))
    return folder


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(40, 216, (3, 64, 64, 3), dtype=torch.uint8, generator=generator)


def passes_of(model: DiffusionAD) -> list[list[int]]:
    """Note the steps that the noise network is asked for from here on, a list a pass."""
    asked: list[list[int]] = []
    model.noise_network.register_forward_hook(
        lambda _, arguments, output: asked.append(arguments[1].tolist())
    )
    return asked


def test_the_network_sees_an_image_once_and_at_the_small_step(
    config: Config, images: torch.Tensor
) -> None:
    model = DiffusionAD(config.detector).eval()
    asked = passes_of(model)
    noisy, predicted = NoisePrediction(model)(images)
    assert asked == [[config.detector.guidance.small_step] * 3]
    assert noisy.shape == predicted.shape == (3, 2, 3, 64, 64)  # the contract's
    assert torch.equal(noisy[:, SMALL], noisy[:, LARGE])
    alpha_bar = model.alpha_bar_at(torch.tensor([config.detector.guidance.small_step]))
    expected = diffusion.predict_x0(noisy[:, SMALL], predicted[:, SMALL], alpha_bar)
    reconstruction, _ = Reconstruction(model)(noisy, predicted)
    torch.testing.assert_close(reconstruction, expected.clamp(-1, 1))


def test_its_reconstruction_is_that_of_two_scales_as_w_goes_to_zero(
    config: Config, images: torch.Tensor
) -> None:
    torch.manual_seed(0)
    alone = DiffusionAD(config.detector).eval()
    guided = DiffusionAD(changed(config, {"guidance.weight": 1e-9}).detector).eval()
    guided.load_state_dict(alone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(alone(images).score, guided(images).score, atol=1e-5, rtol=1e-5)


def test_training_too_passes_each_image_once(config: Config) -> None:
    module = TrainingModule(config, seed=0)
    asked = passes_of(module.model)
    noise_loss, mask_loss = module.joint_loss(blank_batch(config))
    (noise_loss + mask_loss).backward()
    assert [len(steps) for steps in asked] == [4]
    assert max(asked[0]) <= config.detector.guidance.tau
    assert all(p.grad is not None for p in module.model.noise_network.parameters())


def test_it_costs_one_pass_of_the_noise_network(config: Config, tiny_config: Config) -> None:
    alone, guided = cost(config), cost(tiny_config)
    assert guided.inference_flop - alone.inference_flop == alone.noise_pass_flop


def test_the_sample_sheet_has_no_columns_of_the_large_step(config: Config) -> None:
    sheet = sample_sheet.sample_sheet(DiffusionAD(config.detector).eval(), blank_batch(config))
    assert sheet.shape == (4 * 64, 5 * 64, 3)  # x0, x_ts, x0_s, mask, anomaly map


def test_its_exported_reconstruction_answers_as_torch_does(run: Path, images: torch.Tensor) -> None:
    model = load_run(run).model
    with torch.no_grad():
        noisy, predicted = NoisePrediction(model)(images)
        expected, _ = Reconstruction(model)(noisy, predicted)
    session = onnxruntime.InferenceSession(
        export_step(model, Step.RECONSTRUCTION), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run([NORMAL], {NOISY: noisy.numpy(), PREDICTED_NOISE: predicted.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.long  # in short, the step that differs most without guidance: right above
def test_what_is_exported_answers_as_torch_does(run: Path, tmp_path: Path) -> None:
    trained = load_run(run)
    export(trained, tmp_path / "bundle", category="plates")
    bundle = read_bundle(tmp_path / "bundle")
    chain = GraphChain({step: bundle.graph(step).read_bytes() for step in NETWORK_STEPS})
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for ours, served in zip(
        TorchScorer(trained.model).score_arrays(images), chain.score(images), strict=True
    ):
        assert served.score == pytest.approx(ours.score, abs=1e-5)
        np.testing.assert_allclose(served.anomaly_map, ours.anomaly_map, atol=1e-4)


@pytest.mark.parametrize("way", ["large-step", "iterative"])
def test_it_is_not_denoised_from_a_step_it_never_saw(run: Path, tiny_data: Path, way: str) -> None:
    arguments = ["evaluate", str(tiny_data), "--run", str(run), "--denoising"]
    result = CliRunner().invoke(main, [*arguments, way])
    assert result.exit_code == 1
    assert "trained without the large step" in result.output
    assert "--set guidance.weight=1" in result.output
    assert CliRunner().invoke(main, [*arguments, "small-step"]).exit_code == 0
