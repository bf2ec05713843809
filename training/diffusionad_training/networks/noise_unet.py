"""The diffusion U-Net: from a noisy image and its step to an estimate of noise or clean image.

The architecture is that of Dhariwal and Nichol (2021) with residual up- and
downsampling blocks and added time embeddings, as DiffusionAD uses it.
Comments give shapes as (N, C, H, W).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusionad_training.config import NoiseNetworkConfig
from diffusionad_training.networks.layers import zeroed

IMAGE_CHANNELS = 3


class NoiseUNet(nn.Module):
    """Estimate noise (or the clean image, see `parametrisation`) from x_t and t.

    Without `skip_connections` all must pass the coarsest level, as in an autoencoder.
    """

    def __init__(self, config: NoiseNetworkConfig) -> None:
        super().__init__()
        self.skip_connections = config.skip_connections
        base = config.base_channels
        pixels = IMAGE_CHANNELS * config.unshuffle**2
        time_channels = 4 * base
        self.base = base
        self.unshuffle: nn.Module = nn.PixelUnshuffle(config.unshuffle)
        self.shuffle = nn.PixelShuffle(config.unshuffle)
        self.time = nn.Sequential(
            nn.Linear(base, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels)
        )

        def residual(cin: int, cout: int, sampling: str = "keep") -> ResidualBlock:
            return ResidualBlock(cin, cout, time_channels, config.dropout, sampling, config.groups)

        def attention(channels: int) -> Attention:
            return Attention(channels, config.heads, config.groups)

        def block(residual: ResidualBlock, attention: Attention | None = None) -> Stage:
            return Stage(residual, attention, config.recompute)

        def stage(level: int, cin: int, cout: int) -> Stage:
            attends = level in config.attention_levels
            return block(residual(cin, cout), attention(cout) if attends else None)

        channels = base
        self.first = nn.Conv2d(pixels, channels, 3, padding=1)
        skips = [channels]
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(config.multipliers):
            for _ in range(config.blocks):
                self.down.append(stage(level, channels, base * multiplier))
                channels = base * multiplier
                skips.append(channels)
            if level < len(config.multipliers) - 1:
                self.down.append(block(residual(channels, channels, "down")))
                skips.append(channels)

        self.middle = nn.ModuleList(
            [
                block(residual(channels, channels), attention(channels)),
                block(residual(channels, channels)),
            ]
        )

        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            stages = nn.ModuleList()
            for _ in range(config.blocks + 1):
                skip = skips.pop() if config.skip_connections else 0
                stages.append(stage(level, channels + skip, base * multiplier))
                channels = base * multiplier
            upsample = residual(channels, channels, "up") if level > 0 else None
            self.up.append(UpLevel(stages, upsample))

        self.last = nn.Sequential(
            nn.GroupNorm(config.groups, channels),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels, pixels, 3, padding=1)),
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (N, 3, H, W), t (N,) steps from 0 -> (N, 3, H, W)."""
        time = self.time(sinusoidal_embedding(t, self.base))  # (N, 4 * base)
        h = self.first(self.unshuffle(x_t))
        skips = [h]
        for stage in self.down:
            h = stage(h, time)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, time)
        for level in self.up:
            h = level(h, skips if self.skip_connections else None, time)
        out: Tensor = self.shuffle(self.last(h))
        return out


class Stage(nn.Module):
    """A residual block, with attention behind it where the level has it."""

    def __init__(
        self, residual: ResidualBlock, attention: Attention | None, recompute: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention
        self.recompute = recompute

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, C, H, W) and (N, E) -> (N, C', H', W')."""
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._compute, x, time, use_reentrant=False)
            return out
        return self._compute(x, time)

    def _compute(self, x: Tensor, time: Tensor) -> Tensor:
        h: Tensor = self.residual(x, time)
        return h if self.attention is None else self.attention(h)


class UpLevel(nn.Module):
    """One level on the way up: each stage takes a skip, then the whole is upsampled."""

    def __init__(self, stages: nn.ModuleList, upsample: ResidualBlock | None) -> None:
        super().__init__()
        self.stages = stages
        self.upsample = upsample

    def forward(self, x: Tensor, skips: list[Tensor] | None, time: Tensor) -> Tensor:
        """Takes as many of the last `skips`, if there are any, as it has stages."""
        for stage in self.stages:
            x = stage(x if skips is None else torch.cat([x, skips.pop()], dim=1), time)
        return x if self.upsample is None else self.upsample(x, time)


class ResidualBlock(nn.Module):
    """Two normalised convolutions around an added time embedding; may halve or double the size."""

    def __init__(
        self,
        cin: int,
        cout: int,
        time_channels: int,
        dropout: float,
        sampling: str,
        groups: int,
    ) -> None:
        super().__init__()
        self.sampling = sampling
        self.norm_in = nn.GroupNorm(groups, cin)
        self.conv_in = nn.Conv2d(cin, cout, 3, padding=1)
        self.time = nn.Linear(time_channels, cout)
        self.norm_out = nn.GroupNorm(groups, cout)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zeroed(nn.Conv2d(cout, cout, 3, padding=1))
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, cin, H, W) and (N, E) -> (N, cout, H', W')."""
        h = F.silu(self.norm_in(x))
        if self.sampling != "keep":
            h, x = self._resample(h), self._resample(x)
        h = self.conv_in(h) + self.time(F.silu(time))[:, :, None, None]
        h = self.conv_out(self.dropout(F.silu(self.norm_out(h))))
        out: Tensor = self.skip(x) + h
        return out

    def _resample(self, x: Tensor) -> Tensor:
        if self.sampling == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest")


class Attention(nn.Module):
    """Self-attention over all positions of a feature map."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        n, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3 * self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).chunk(3, dim=1)  # each (N, heads, H*W, C/heads)
        h = F.scaled_dot_product_attention(q, k, v)
        h = h.transpose(-1, -2).reshape(n, c, height, width)
        out: Tensor = x + self.out(h)
        return out


def sinusoidal_embedding(t: Tensor, channels: int) -> Tensor:
    """Cosines and sines of t at geometric frequencies from 1 to 1/10000: (N,) -> (N, channels)."""
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(10_000) * exponents)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)
