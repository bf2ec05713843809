"""The equations of diffusion.py, by property."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusionad_training.config.presets import EDGE, PAPER
from diffusionad_training.method import diffusion

SHAPE = (2, 3, 4, 4)
signal_shares = st.floats(min_value=0.01, max_value=0.99)
seeds = st.integers(min_value=0, max_value=2**31 - 1)


def normal(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def per_image(share: float) -> torch.Tensor:
    return torch.tensor([share, 1 - share], dtype=torch.float64)


@given(signal_shares, seeds)
def test_predict_x0_inverts_add_noise(share: float, seed: int) -> None:
    x0, noise = normal(seed, 2)
    x_t = diffusion.add_noise(x0, noise, per_image(share))
    torch.testing.assert_close(diffusion.predict_x0(x_t, noise, per_image(share)), x0)


@given(signal_shares, seeds)
def test_noise_from_x0_inverts_predict_x0(share: float, seed: int) -> None:
    x_t, noise = normal(seed, 2)
    x0 = diffusion.predict_x0(x_t, noise, per_image(share))
    torch.testing.assert_close(diffusion.noise_from_x0(x_t, x0, per_image(share)), noise)


def guided(
    x_ts: torch.Tensor, noise_s: torch.Tensor, n: torch.Tensor, a: torch.Tensor, weight: float
) -> torch.Tensor:
    """Eqs. 7 and 8, one after the other."""
    noise_g = diffusion.guided_noise(x_ts, noise_s, n, a, weight)
    return diffusion.norm_guided_reconstruction(x_ts, noise_g, a)


@given(signal_shares, seeds, st.floats(min_value=0, max_value=3))
def test_norm_guidance_has_its_closed_form(share: float, seed: int, weight: float) -> None:
    x_ts, noise_s, n = normal(seed, 3)
    a = per_image(share)
    x0_s = diffusion.predict_x0(x_ts, noise_s, a)
    expected = x0_s + weight * (1 - a).view(-1, 1, 1, 1) * (n - x0_s)
    reconstruction = guided(x_ts, noise_s, n, a, weight)
    torch.testing.assert_close(reconstruction, expected)


@given(signal_shares, seeds)
def test_no_guidance_leaves_the_small_step_alone(share: float, seed: int) -> None:
    x_ts, noise_s, n = normal(seed, 3)
    a = per_image(share)
    torch.testing.assert_close(
        guided(x_ts, noise_s, n, a, 0.0),
        diffusion.predict_x0(x_ts, noise_s, a),
    )


@given(signal_shares)
def test_add_noise_mixes_by_the_roots_of_the_shares(share: float) -> None:
    one, none = torch.ones(SHAPE, dtype=torch.float64), torch.zeros(SHAPE, dtype=torch.float64)
    a = per_image(share)
    assert diffusion.add_noise(one, none, a)[0].unique().item() == pytest.approx(share**0.5)
    assert diffusion.add_noise(none, one, a)[0].unique().item() == pytest.approx((1 - share) ** 0.5)


@pytest.mark.parametrize(
    ("config", "step", "share"),
    [
        (PAPER, 200, 0.803),
        (PAPER, 400, 0.433),
        (EDGE, 200, 0.656),
        (EDGE, 300, 0.394),
        (EDGE, 400, 0.194),
    ],
    ids=lambda value: getattr(value, "preset", str(value)),
)
def test_schedules_leave_the_signal_that_was_published(config, step, share) -> None:
    schedule = config.detector.schedule
    table = diffusion.alpha_bar_table(schedule.steps, schedule.beta_first, schedule.beta_last)
    assert table[step].item() == pytest.approx(share, abs=1e-3)


def test_the_schedule_is_double_precision_and_falls() -> None:
    table = diffusion.alpha_bar_table(1000, 1e-4, 2e-2)
    assert table.dtype == torch.float64
    assert table.shape == (1000,)
    assert (table.diff() < 0).all()
    assert 0 < table[-1] < table[0] < 1


@given(signal_shares)
def test_signal_to_noise_is_the_ratio_of_their_powers(share: float) -> None:
    ratio = diffusion.signal_to_noise(torch.tensor(share, dtype=torch.float64)).item()
    assert ratio * (1 - share) == pytest.approx(share)


@given(signal_shares, st.floats(min_value=0.5, max_value=0.999), seeds)
def test_a_step_back_has_the_posterior_s_mean(share: float, alpha: float, seed: int) -> None:
    """Ho et al. (2020), Eq. 7: what x_{t-1} is on average, given x_t and the clean image."""
    x0, noise, z = normal(seed, 3)
    a = torch.tensor([share, share], dtype=torch.float64)
    before = a / alpha
    x_t = diffusion.add_noise(x0, noise, a)
    mean = diffusion.denoise_step(x_t, noise, torch.zeros_like(z), a, before.clamp(max=1))
    b, bb = a.view(-1, 1, 1, 1), before.clamp(max=1).view(-1, 1, 1, 1)
    step = b / bb
    expected = (bb.sqrt() * (1 - step) * x0 + step.sqrt() * (1 - bb) * x_t) / (1 - b)
    torch.testing.assert_close(mean, expected)


@given(signal_shares, seeds)
def test_the_last_step_back_is_one_step_denoising(share: float, seed: int) -> None:
    x_t, noise, z = normal(seed, 3)
    a = per_image(share)
    torch.testing.assert_close(
        diffusion.denoise_step(x_t, noise, z, a, torch.ones_like(a)),
        diffusion.predict_x0(x_t, noise, a),
    )


def test_a_step_back_adds_noise_of_variance_beta_tilde() -> None:
    x_t, noise, z = normal(0, 3)
    a, before = torch.tensor([0.4, 0.4]).double(), torch.tensor([0.5, 0.5]).double()
    still = diffusion.denoise_step(x_t, noise, torch.zeros_like(z), a, before)
    moved = diffusion.denoise_step(x_t, noise, z, a, before)
    beta_tilde = (1 - 0.5) / (1 - 0.4) * (1 - 0.4 / 0.5)
    torch.testing.assert_close(moved - still, beta_tilde**0.5 * z)
