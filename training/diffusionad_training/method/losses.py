"""The losses of joint training, Eqs. 9 to 11 of arXiv:2303.08730v4, as pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusionad_training.config import LossConfig
from diffusionad_training.method.diffusion import signal_to_noise


def noise_loss(
    noise_error_s: Tensor,
    noise_error_b: Tensor,
    anomalous: Tensor,
    restoration_weight: float = 0.0,
) -> Tensor:
    """Squared error over normal samples, the mean of both scales. Eq. 9.

        L = (1 - y) * (|e_s|^2 + |e_b|^2) / 2

    noise_error_s, noise_error_b  (N,)   mean squared error of each image at each scale
    anomalous                     (N,)   y, bool
    restoration_weight            what anomalous samples weigh; Eq. 9 has 0
    returns                       ()     weighted mean over the samples; 0 if none weighs anything
    """
    per_image = (noise_error_s + noise_error_b) / 2
    weights = torch.where(anomalous, restoration_weight, 1.0).to(per_image.dtype)
    total = weights.sum()
    return (weights * per_image).sum() / torch.where(total > 0, total, 1.0)


def squared_error(truth: Tensor, estimate: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of each image's estimate: (N, C, H, W) twice -> (N,).

    weights  (N, 1, H, W)   of the pixels in the mean; None: all alike
    """
    error = (truth - estimate).square()
    if weights is None:
        return error.flatten(1).mean(dim=1)
    per_pixel = error.mean(dim=1, keepdim=True)
    return (weights * per_pixel).flatten(1).sum(dim=1) / weights.flatten(1).sum(dim=1)


def weighted_x0_error(
    x0: Tensor, estimate: Tensor, alpha_bar: Tensor, cap: float, weights: Tensor | None = None
) -> Tensor:
    """Squared error of the clean image, weighted by min(SNR, cap). Hang et al. (2023), min-SNR.

    With weight SNR alone it would equal the squared noise error exactly; the
    cap keeps steps with little noise from drowning the others.

    x0, estimate  (N, C, H, W);   alpha_bar  (N,);   returns  (N,)
    weights       (N, 1, H, W)   of the pixels in the mean; None: all alike
    """
    weight = signal_to_noise(alpha_bar).clamp(max=cap)
    return weight * squared_error(x0, estimate, weights)


def focal_loss(mask: Tensor, logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """Cross-entropy that fades for pixels already right. Lin et al. (2017), Eq. 5.

        L = -alpha_t * (1 - p_t)^gamma * log(p_t)

    mask, logits  (N, 1, H, W)   mask in {0, 1}
    returns       ()             mean over all pixels
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    probability = torch.sigmoid(logits)
    p_t = torch.where(mask > 0.5, probability, 1 - probability)
    alpha_t = torch.where(mask > 0.5, alpha, 1 - alpha)
    return (alpha_t * (1 - p_t).pow(gamma) * cross_entropy).mean()


def mask_loss(mask: Tensor, logits: Tensor, config: LossConfig) -> Tensor:
    """Smooth L1 on the anomaly map plus the weighted focal loss. Eq. 10.

    mask, logits  (N, 1, H, W)   the map is sigmoid(logits)
    """
    smooth_l1 = F.smooth_l1_loss(torch.sigmoid(logits), mask)
    focal = focal_loss(mask, logits, config.focal_alpha, config.focal_gamma)
    return smooth_l1 + config.focal_weight * focal
