"""The ways to denoise that the paper's ablation compares."""

import pytest
import torch

from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.method import ablations, diffusion
from diffusionad_training.method.ablations import Denoising
from diffusionad_training.method.model import DiffusionAD
from diffusionad_training.method.restoration import Estimate


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def oracle(
    tiny_config: Config, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> DiffusionAD:
    """A model whose noise network knows the clean images; ten steps of a coarse schedule."""
    settings = {
        "schedule.steps": 10,
        "schedule.beta_last": 0.2,
        "guidance.small_step": 3,
        "guidance.large_step": 8,
        "guidance.tau": 5,
        "guidance.last_step": 9,
    }
    model = DiffusionAD(changed(tiny_config, settings).detector)
    clean = model.normalise(images)

    def estimate(x_t: torch.Tensor, t: torch.Tensor) -> Estimate:
        x0 = clean if len(x_t) == len(clean) else clean.repeat_interleave(2, dim=0)
        return Estimate(diffusion.noise_from_x0(x_t, x0, model.alpha_bar_at(t)), x0)

    monkeypatch.setattr(model, "estimate", estimate)
    return model


@pytest.mark.parametrize("way", list(Denoising))
def test_with_a_perfect_network_every_way_gives_the_clean_image(
    oracle: DiffusionAD, images: torch.Tensor, way: Denoising
) -> None:
    reconstruction = ablations.reconstruct(oracle, images, way)
    torch.testing.assert_close(reconstruction, oracle.normalise(images), atol=1e-4, rtol=0)


def test_iterating_asks_the_network_once_a_step(
    oracle: DiffusionAD, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    estimate = oracle.estimate

    def counted(x_t: torch.Tensor, t: torch.Tensor) -> Estimate:
        asked.append(int(t[0]))
        return estimate(x_t, t)

    monkeypatch.setattr(oracle, "estimate", counted)
    ablations.reconstruct(oracle, images, Denoising.ITERATIVE)
    assert asked[-9:] == [8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_norm_guidance_is_what_the_model_does(tiny_config: Config, images: torch.Tensor) -> None:
    model = DiffusionAD(tiny_config.detector).eval()
    with torch.no_grad():
        ours = ablations.detect(model, images, Denoising.NORM_GUIDED)
        torch.testing.assert_close(ours.score, model(images).score)


@pytest.mark.parametrize("way", list(Denoising))
def test_an_image_is_denoised_alike_in_any_batch(
    tiny_config: Config, images: torch.Tensor, way: Denoising
) -> None:
    model = DiffusionAD(
        changed(tiny_config, {"guidance.small_step": 2, "guidance.large_step": 4}).detector
    ).eval()
    together = ablations.reconstruct(model, images, way)
    alone = ablations.reconstruct(model, images[1:], way)
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)
