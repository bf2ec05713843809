"""The detector around its networks: scales, clamps, ranges and the score."""

import pytest
import torch
from torch import Tensor, nn

from diffusionad_client.contract import TOP_PIXELS
from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.method import diffusion
from diffusionad_training.method.model import (
    DiffusionAD,
    NoisePrediction,
    Reconstruction,
    Segmentation,
)
from diffusionad_training.method.restoration import LARGE, SMALL


class KnowsTheCleanImage(nn.Module):
    """Stands in for the noise network (x0): right at every step but those it is told to spoil."""

    def __init__(self, x0: Tensor, spoilt: dict[int, Tensor] | None = None) -> None:
        super().__init__()
        self.x0 = x0
        self.spoilt = spoilt or {}

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        rows = [
            self.spoilt.get(int(step), self.x0[index // 2]) for index, step in enumerate(t.tolist())
        ]
        return torch.stack(rows)


@pytest.fixture
def model(tiny_config: Config) -> DiffusionAD:
    torch.manual_seed(0)
    return DiffusionAD(tiny_config.detector).eval()


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(40, 216, (2, 64, 64, 3), dtype=torch.uint8, generator=generator)


def test_a_perfect_network_reconstructs_the_image(model: DiffusionAD, images: Tensor) -> None:
    model.noise_network = KnowsTheCleanImage(model.normalise(images))
    reconstruction, picture = Reconstruction(model)(*NoisePrediction(model)(images))
    torch.testing.assert_close(reconstruction, model.normalise(images), atol=1e-4, rtol=0)
    assert (picture.int() - images.int()).abs().max() <= 1


def test_noise_prediction_gives_the_noise_that_was_added(
    model: DiffusionAD, images: Tensor
) -> None:
    model.noise_network = KnowsTheCleanImage(model.normalise(images))
    noisy, predicted = NoisePrediction(model)(images)
    assert noisy.shape == predicted.shape == (2, 2, 3, 64, 64)
    for scale in (SMALL, LARGE):
        added = model.noise[scale].float().expand(2, -1, -1, -1)
        torch.testing.assert_close(predicted[:, scale], added, atol=1e-4, rtol=1e-4)
        step = (model.config.guidance.small_step, model.config.guidance.large_step)[scale]
        expected = diffusion.add_noise(
            model.normalise(images), added, model.alpha_bar_at(torch.tensor([step]))
        )
        torch.testing.assert_close(noisy[:, scale], expected)


def test_guidance_comes_from_the_large_step_clamped(model: DiffusionAD, images: Tensor) -> None:
    x0 = model.normalise(images)
    guidance = model.config.guidance
    n = torch.full((3, 64, 64), 1.7)  # outside the range: clamped to 1 before it guides
    model.noise_network = KnowsTheCleanImage(x0, {guidance.large_step: n})
    reconstruction, _ = Reconstruction(model)(*NoisePrediction(model)(images))
    share = 1 - model.alpha_bar[guidance.small_step]
    expected = (x0 + guidance.weight * share * (1 - x0)).clamp(-1, 1)
    torch.testing.assert_close(reconstruction, expected, atol=1e-3, rtol=0)


def test_the_reconstruction_stays_in_range(model: DiffusionAD, images: Tensor) -> None:
    far = torch.full((3, 64, 64), 5.0)
    guidance = model.config.guidance
    model.noise_network = KnowsTheCleanImage(
        model.normalise(images), {guidance.small_step: far, guidance.large_step: far}
    )
    reconstruction, picture = Reconstruction(model)(*NoisePrediction(model)(images))
    assert reconstruction.max() == 1
    assert (picture == 255).all()


def test_the_score_is_the_mean_of_the_highest_pixels(model: DiffusionAD, images: Tensor) -> None:
    anomaly_map, score = Segmentation(model)(images, model.normalise(images.flip(1)))
    assert anomaly_map.shape == (2, 64, 64)
    assert score.shape == (2, 1)
    highest = anomaly_map.flatten(1).sort(dim=1).values[:, -TOP_PIXELS:]
    torch.testing.assert_close(score[:, 0], highest.mean(dim=1))


@pytest.mark.parametrize(("signed", "bottom"), [(True, -1.0), (False, 0.0)])
def test_pictures_survive_both_ranges(
    tiny_config: Config, images: Tensor, signed: bool, bottom: float
) -> None:
    model = DiffusionAD(changed(tiny_config, {"signed_range": signed}).detector)
    x = model.normalise(images)
    assert x.shape == (2, 3, 64, 64)
    assert model.normalise(torch.zeros_like(images)).unique().item() == bottom
    assert model.normalise(torch.full_like(images, 255)).unique().item() == 1
    assert torch.equal(model.to_picture(x), images)


def test_both_parametrisations_agree_on_what_they_mean(tiny_config: Config, images: Tensor) -> None:
    """A network that answers zero says `no noise` in one and `a grey image` in the other."""
    epsilon = changed(tiny_config, {"noise_network.parametrisation": "epsilon"})
    t = torch.tensor([300, 300])
    for config in (tiny_config, epsilon):
        model = DiffusionAD(config.detector)
        x_t = torch.randn(2, 3, 64, 64)
        estimate = model.estimate(x_t, t)
        rebuilt = diffusion.add_noise(estimate.x0, estimate.noise, model.alpha_bar_at(t))
        torch.testing.assert_close(rebuilt, x_t)
        zero = estimate.x0 if config is tiny_config else estimate.noise
        assert (zero == 0).all()


def test_the_fixed_noise_is_exact_in_half_precision_and_seeded(tiny_config: Config) -> None:
    first, again, other = (
        DiffusionAD(tiny_config.detector, noise_seed=seed).noise for seed in (0, 0, 1)
    )
    assert first.dtype == torch.float16
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
