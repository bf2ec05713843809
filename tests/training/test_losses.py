"""Eqs. 9 to 11 against values worked out by hand."""

import math

import pytest
import torch

from diffusionad_training.config import LossConfig
from diffusionad_training.method import diffusion, losses


def test_noise_loss_counts_normal_samples_only() -> None:
    small = torch.tensor([1.0, 100.0])
    large = torch.tensor([3.0, 100.0])
    anomalous = torch.tensor([False, True])
    assert losses.noise_loss(small, large, anomalous).item() == pytest.approx(2.0)


def test_noise_loss_of_an_all_anomalous_batch_is_zero_not_nan() -> None:
    errors = torch.ones(3)
    assert losses.noise_loss(errors, errors, torch.ones(3, dtype=torch.bool)).item() == 0


def test_restoration_lets_anomalous_samples_weigh_in() -> None:
    small, large = torch.tensor([1.0, 4.0]), torch.tensor([3.0, 8.0])
    anomalous = torch.tensor([False, True])
    assert losses.noise_loss(small, large, anomalous, 0.5).item() == pytest.approx(
        (2 + 0.5 * 6) / 1.5
    )


def test_anomalous_samples_send_no_gradient_through_the_noise_loss() -> None:
    errors = torch.ones(2, requires_grad=True)
    losses.noise_loss(errors, errors, torch.tensor([False, True])).backward()
    assert errors.grad is not None
    assert errors.grad.tolist() == [1.0, 0.0]


def test_x0_error_with_weight_snr_is_the_noise_error() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise, estimate = torch.randn(3, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    alpha_bar = torch.tensor([0.2, 0.7], dtype=torch.float64)
    x_t = diffusion.add_noise(x0, noise, alpha_bar)
    estimated_noise = diffusion.noise_from_x0(x_t, estimate, alpha_bar)
    torch.testing.assert_close(
        losses.weighted_x0_error(x0, estimate, alpha_bar, cap=math.inf),
        losses.squared_error(noise, estimated_noise),
    )


def test_pixels_under_an_anomaly_may_weigh_more() -> None:
    truth = torch.zeros(2, 3, 1, 4)
    estimate = torch.tensor([1.0, 2.0, 0.0, 0.0]).expand(2, 3, 1, 4)
    weights = torch.tensor([[10.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]).view(2, 1, 1, 4)
    weighted = losses.squared_error(truth, estimate, weights)
    assert weighted.tolist() == pytest.approx([(10 * 1 + 4) / 13, 5 / 4])
    assert weighted[1] == losses.squared_error(truth, estimate)[1]
    alpha_bar = torch.tensor([0.5, 0.5])  # SNR 1
    assert torch.equal(losses.weighted_x0_error(truth, estimate, alpha_bar, 5, weights), weighted)


def test_the_weight_of_x0_error_is_capped() -> None:
    x0, estimate = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    error = losses.weighted_x0_error(x0, estimate, torch.tensor([0.99]), cap=5)  # SNR 99
    assert error.item() == pytest.approx(5)


def test_focal_loss_of_an_undecided_pixel() -> None:
    # p_t = 1/2 everywhere: alpha * (1/2)^gamma * log 2
    logits = torch.zeros(1, 1, 2, 2)
    mask = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    loss = losses.focal_loss(mask, logits, alpha=0.5, gamma=4)
    assert loss.item() == pytest.approx(0.5 * 0.5**4 * math.log(2))


def test_focal_loss_with_alpha_weighs_defects_against_normal_pixels() -> None:
    logits = torch.zeros(1, 1, 1, 1)
    of_defect = losses.focal_loss(torch.ones(1, 1, 1, 1), logits, alpha=0.8, gamma=0)
    of_normal = losses.focal_loss(torch.zeros(1, 1, 1, 1), logits, alpha=0.8, gamma=0)
    assert of_defect.item() == pytest.approx(4 * of_normal.item())


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_losses_stay_finite_for_extreme_logits(logit: float) -> None:
    logits = torch.full((1, 1, 2, 2), logit, requires_grad=True)
    mask = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    loss = losses.mask_loss(mask, logits, LossConfig())
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_mask_loss_is_smooth_l1_plus_weighted_focal() -> None:
    logits = torch.zeros(1, 1, 1, 2)
    mask = torch.tensor([[[[0.0, 1.0]]]])
    config = LossConfig(focal_weight=5, focal_alpha=0.5, focal_gamma=4)
    expected = 0.5 * 0.5**2 + 5 * 0.5 * 0.5**4 * math.log(2)
    assert losses.mask_loss(mask, logits, config).item() == pytest.approx(expected)
