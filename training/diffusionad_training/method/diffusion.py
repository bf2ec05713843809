"""The diffusion equations of DiffusionAD, as pure functions.

arXiv:2303.08730v4; equation numbers are that version's unless another paper
is named. Images are (N, C, H, W) in the model's own range; a step t counts
from 0. Nothing here holds weights, reads files or draws noise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def alpha_bar_table(steps: int, beta_first: float, beta_last: float) -> Tensor:
    """Share of signal power left at each step of a linear schedule. Under Eq. 1.

        alpha_bar_t = prod_{i<=t} (1 - beta_i)

    returns  (steps,) float64, falling, in (0, 1)
    """
    betas = torch.linspace(beta_first, beta_last, steps, dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0)


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Perturb a clean image. Eq. 1.

        x_t = sqrt(alpha_bar) * x0 + sqrt(1 - alpha_bar) * noise

    x0, noise  (N, C, H, W)
    alpha_bar  (N,)
    """
    a = _per_image(alpha_bar)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def predict_x0(x_t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Recover the clean image in one step. Eq. 6.

        x0_hat = (x_t - sqrt(1 - alpha_bar) * noise) / sqrt(alpha_bar)

    x_t, noise  (N, C, H, W)   noise is the network's estimate
    alpha_bar   (N,)
    returns     (N, C, H, W)   not clamped
    """
    a = _per_image(alpha_bar)
    return (x_t - (1 - a).sqrt() * noise) / a.sqrt()


def denoise_step(
    x_t: Tensor, noise: Tensor, z: Tensor, alpha_bar: Tensor, alpha_bar_before: Tensor
) -> Tensor:
    """Go one step back, x_t -> x_{t-1}. Eq. 3, whose beta~_t is a variance: its root scales z.

        alpha_t  = alpha_bar_t / alpha_bar_{t-1}
        beta~_t  = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) * (1 - alpha_t)
        x_{t-1}  = (x_t - (1 - alpha_t) / sqrt(1 - alpha_bar_t) * noise) / sqrt(alpha_t)
                   + sqrt(beta~_t) * z

    x_t, noise, z     (N, C, H, W)   noise is the network's estimate, z standard normal
    alpha_bar         (N,)           at t
    alpha_bar_before  (N,)           at t - 1; 1 where t = 0, and z then has no part
    """
    a, before = _per_image(alpha_bar), _per_image(alpha_bar_before)
    alpha = a / before
    mean = (x_t - (1 - alpha) / (1 - a).sqrt() * noise) / alpha.sqrt()
    variance = (1 - before) / (1 - a) * (1 - alpha)
    return mean + variance.sqrt() * z


def noise_from_x0(x_t: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """Turn an estimate of the clean image into one of the noise: Eq. 1 solved for it.

        noise = (x_t - sqrt(alpha_bar) * x0) / sqrt(1 - alpha_bar)

    x_t, x0    (N, C, H, W)
    alpha_bar  (N,)
    """
    a = _per_image(alpha_bar)
    return (x_t - a.sqrt() * x0) / (1 - a).sqrt()


def guided_noise(
    x_ts: Tensor, noise_s: Tensor, n: Tensor, alpha_bar_s: Tensor, weight: float
) -> Tensor:
    """Pull the small step's noise estimate towards the normal image n. Eq. 7.

        n_ts = sqrt(alpha_bar_s) * n + sqrt(1 - alpha_bar_s) * noise_s
        noise_g = noise_s - sqrt(1 - alpha_bar_s) * w * (n_ts - x_ts)

    x_ts, noise_s, n  (N, C, H, W)   n is the large step's estimate of the clean image
    alpha_bar_s       (N,)
    """
    a = _per_image(alpha_bar_s)
    n_ts = add_noise(n, noise_s, alpha_bar_s)
    return noise_s - (1 - a).sqrt() * weight * (n_ts - x_ts)


def norm_guided_reconstruction(x_ts: Tensor, noise_g: Tensor, alpha_bar_s: Tensor) -> Tensor:
    """Reconstruct the anomaly-free image from both scales. Eq. 8: Eq. 6 on Eq. 7's noise.

    It equals x0_s + w * (1 - alpha_bar_s) * (n - x0_s), with x0_s of Eq. 6.

    x_ts, noise_g  (N, C, H, W)   noise_g is that of `guided_noise`
    returns        (N, C, H, W)   not clamped
    """
    return predict_x0(x_ts, noise_g, alpha_bar_s)


def reduced(images: Tensor, k: int) -> Tensor:
    """Average blocks of k x k pixels: (N, C, H, W) -> (N, C, H / k, W / k).

    Of an image that was perturbed with `coarse` noise this is Eq. 1 on the reduced image, at the
    same alpha_bar.
    """
    return F.avg_pool2d(images, k)


def coarse(noise: Tensor, k: int) -> Tensor:
    """Let each block of k x k pixels have the noise of its first: (N, C, H, W) -> the same.

    Independent noise would average out when the image is reduced; this stays standard normal.
    """
    blocks = noise[..., ::k, ::k]
    return blocks.repeat_interleave(k, dim=-2).repeat_interleave(k, dim=-1)


def enlarged(images: Tensor, k: int) -> Tensor:
    """Interpolate to k times the side, bilinearly: (N, C, H, W) -> (N, C, k H, k W)."""
    if k == 1:
        return images
    return F.interpolate(images, scale_factor=k, mode="bilinear", align_corners=False)


def signal_to_noise(alpha_bar: Tensor) -> Tensor:
    """Signal-to-noise ratio alpha_bar / (1 - alpha_bar) of a step, for loss weights."""
    return alpha_bar / (1 - alpha_bar)


def _per_image(alpha_bar: Tensor) -> Tensor:
    return alpha_bar.view(-1, 1, 1, 1)
