"""Smooth an anomaly map, so that a defect is a region and not the edges in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_REACH = 3  # standard deviations after which the Gaussian is cut off


def smooth(anomaly_map: Tensor, sigma: float, inside: Tensor | None = None) -> Tensor:
    """Replace each pixel by the Gaussian mean of those around it, as far as they count.

    What lies beyond the map's border or outside the region counts for nothing,
    so that a map which is the same everywhere stays as it is.

    anomaly_map  (N, H, W)
    sigma                   standard deviation in pixels
    inside       (H, W)     bool, True in the region of interest; None: everywhere
    returns      (N, H, W)  0 outside the region
    """
    weights = torch.ones_like(anomaly_map[:1])
    if inside is not None:
        weights = weights * inside
    mean = _blur(anomaly_map * weights, sigma) / _blur(weights, sigma).clamp(min=1e-6)
    return mean * weights


def _blur(maps: Tensor, sigma: float) -> Tensor:
    """Weighted sums of each pixel's surroundings, one axis after the other: (N, H, W) -> same."""
    radius = round(_REACH * sigma)
    distances = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (distances / sigma).square())
    kernel = kernel / kernel.sum()
    rows = F.conv2d(maps[:, None], kernel.view(1, 1, 1, -1), padding=(0, radius))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1), padding=(radius, 0)).squeeze(1)
