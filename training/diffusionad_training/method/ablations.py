"""The ways to denoise that Table 3 of arXiv:2303.08730v4 compares.

Only norm guidance is served; the others are for measuring what it brings. The
segmentation network is the same for all of them, trained on its own kind of
reconstruction.
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from diffusionad_training.errors import ConfigError
from diffusionad_training.method import diffusion
from diffusionad_training.method.model import Detection, DiffusionAD, Segmentation
from diffusionad_training.method.restoration import LARGE, SMALL

_Z_SEED = 0  # of the noise that Eq. 3 adds: the same for every image and run


class Denoising(str, Enum):
    """How a noisy image becomes a clean one."""

    ITERATIVE = "iterative"  # Eq. 3 from the large step down: one pass of the network a step
    SMALL_STEP = "small-step"  # Eq. 6 at t_s
    LARGE_STEP = "large-step"  # Eq. 6 at t_b
    NORM_GUIDED = "norm-guided"  # Eqs. 7 and 8, from both


def detect(model: DiffusionAD, images: Tensor, denoising: Denoising) -> Detection:
    """Detect defects in images (N, H, W, 3) uint8 with another way to denoise."""
    if denoising is Denoising.NORM_GUIDED:
        detection: Detection = model(images)
        return detection
    scales = len(model.restoration.steps)
    if scales == 0:
        raise ConfigError(
            f"{denoising.value}: an {model.config.restoration} has no noise to remove; leave "
            "--denoising out"
        )
    if scales == 1 and denoising is not Denoising.SMALL_STEP:
        raise ConfigError(
            f"{denoising.value}: trained without the large step; leave --denoising out, or train "
            "with --set guidance.weight=1"
        )
    x0 = model.clamp(reconstruct(model, images, denoising))
    anomaly_map, score = Segmentation(model)(images, x0)
    return Detection(score.squeeze(1), anomaly_map, model.to_picture(x0))


@torch.no_grad()
def reconstruct(model: DiffusionAD, images: Tensor, denoising: Denoising) -> Tensor:
    """Reconstruct images (N, H, W, 3) uint8: (N, 3, H, W) in the model's range, not clamped."""
    way = model.restoration
    noisy, predicted = way.predict_noise(model, model.normalise(images))
    if denoising is Denoising.ITERATIVE:
        return _iterate(model, noisy[:, LARGE], model.config.guidance.large_step)
    if denoising is Denoising.NORM_GUIDED:
        return way.reconstruct(model, noisy, predicted)
    guidance = model.config.guidance
    scale, step = (
        (SMALL, guidance.small_step)
        if denoising is Denoising.SMALL_STEP
        else (LARGE, guidance.large_step)
    )
    alpha_bar = model.alpha_bar_at(torch.tensor([step], device=images.device))
    return diffusion.predict_x0(noisy[:, scale], predicted[:, scale], alpha_bar)


def _iterate(model: DiffusionAD, x_t: Tensor, start: int) -> Tensor:
    """Denoise step by step, x_start -> ... -> x_0 -> clean, each with a pass of the network."""
    schedule = model.config.schedule
    # In double precision: each step's beta is a difference of neighbours in this table.
    table = diffusion.alpha_bar_table(schedule.steps, schedule.beta_first, schedule.beta_last)
    before = torch.cat([torch.ones(1, dtype=table.dtype), table[:-1]])
    generator = torch.Generator().manual_seed(_Z_SEED)
    for step in range(start, -1, -1):
        t = torch.full((len(x_t),), step, device=x_t.device)
        noise = model.estimate(x_t, t).noise
        z = torch.randn(1, *x_t.shape[1:], generator=generator).to(x_t.device)
        x_t = diffusion.denoise_step(
            x_t, noise, z, table[step : step + 1], before[step : step + 1]
        ).to(torch.float32)
    return x_t
