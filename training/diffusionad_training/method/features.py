"""What the segmentation is told besides pixels: features, and how far from good ones they are.

Frozen features of an image tell a smudge or a fine scratch, which pixels hardly do
(as in DeSTSeg, Zhang et al., 2023); those of its reconstruction beside them tell what
is out of place. The distance of each patch of features to the nearest one of a good
part (PatchCore, Roth et al., 2022) says what a good part looks like *in features*: a
second kind of norm. The segmentation network weighs all of it, see its adapters.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusionad_training.config import FeaturesConfig
from diffusionad_training.config.detector import MEMORY_STRIDE
from diffusionad_training.method import diffusion
from diffusionad_training.networks import efficientnet_lite
from diffusionad_training.networks.efficientnet_lite import EfficientNetLite0

_CANDIDATES = 20_000  # patches that a memory is chosen from
_JUDGED = 4_096  # patches whose distances make the unit


class NormalFeatures(nn.Module):
    """Features of images and their reconstructions, and their distance to a memory of good ones."""

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = EfficientNetLite0()
        self.memory = FeatureMemory(config.memory) if config.memory else None

    @staticmethod
    def channels(config: FeaturesConfig) -> dict[int, int]:
        """Channels that are handed on, by their stride in pixels of the image."""
        views = 3 if config.compare else 1  # of the image, of its reconstruction, their difference
        by_stride = {
            stride // config.enlarge: views * channels
            for stride, channels in zip(
                efficientnet_lite.STRIDES, efficientnet_lite.CHANNELS, strict=True
            )
        }
        if config.memory:
            by_stride[config.memory_stride] += 1
        return by_stride

    @torch.no_grad()
    def forward(
        self, image: Tensor, reconstruction: Tensor, sources: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Both (N, 3, H, W) in [0, 1] -> features (N, C, H / s, W / s) by stride s.

        `sources` (N,) says of which training image each is: the memory's patches of that
        one do not count, as those of a new part are not in it either.
        """
        count = image.shape[0]
        seen = torch.cat([image, reconstruction]) if self.config.compare else image
        taps = self._see(seen)
        handed: dict[int, Tensor] = {}
        for stride, tap in zip(efficientnet_lite.STRIDES, taps, strict=True):
            views = [tap[:count]]
            if self.config.compare:
                views += [tap[count:], (tap[:count] - tap[count:]).abs()]
            if self.memory is not None and stride == MEMORY_STRIDE:
                views.append(self.memory(patches([each[:count] for each in taps]), sources))
            handed[stride // self.config.enlarge] = torch.cat(views, dim=1)
        return handed

    @torch.no_grad()
    def learn(self, batches: Iterable[tuple[Tensor, Tensor]], seed: int) -> None:
        """Fill the memory from good images: (N, 3, H, W) in [0, 1] and their sources (N,)."""
        if self.memory is None:
            return
        generator = torch.Generator().manual_seed(seed)
        found, of = [], []
        for images, sources in batches:
            embedded = patches(self._see(images))
            found.append(embedded.flatten(2).transpose(1, 2).flatten(0, 1).cpu())
            of.append(sources.repeat_interleave(found[-1].shape[0] // len(sources)).cpu())
        self.memory.fill(torch.cat(found), torch.cat(of), generator)

    def _see(self, pictures: Tensor) -> list[Tensor]:
        """Features of pictures; enlarged, the backbone sees finer detail than its grid has."""
        taps: list[Tensor] = self.backbone(diffusion.enlarged(pictures, self.config.enlarge))
        return taps


PATCH_CHANNELS = sum(efficientnet_lite.CHANNELS[2:])


def patches(taps: list[Tensor]) -> Tensor:
    """Describe each place at MEMORY_STRIDE with its neighbourhood: (N, PATCH_CHANNELS, h, w)."""
    fine, coarse = (F.avg_pool2d(tap, 3, stride=1, padding=1) for tap in taps[2:4])
    return torch.cat([fine, diffusion.enlarged(coarse, 2)], dim=1)


class FeatureMemory(nn.Module):
    """Patches of good images, chosen so that every good patch is near one of them."""

    patches: Tensor  # (M, C)
    sources: Tensor  # (M,) of which training image each is
    unit: Tensor  # () what good patches are away from those of other good images, on average

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("patches", torch.zeros(size, PATCH_CHANNELS))
        self.register_buffer("sources", torch.zeros(size, dtype=torch.long))
        self.register_buffer("unit", torch.ones(()))

    def forward(self, queries: Tensor, sources: Tensor | None = None) -> Tensor:
        """(N, C, h, w) -> distance to the nearest patch, (N, 1, h, w), in units of good ones."""
        n, c, h, w = queries.shape
        flat = queries.flatten(2).transpose(1, 2).reshape(-1, c)
        of = None if sources is None else sources.repeat_interleave(h * w)
        return (self.distances(flat, of) / self.unit).reshape(-1, 1, h, w)

    def distances(self, queries: Tensor, sources: Tensor | None = None) -> Tensor:
        """(Q, C) -> (Q,), to the nearest patch that is of another source."""
        # |q - p|^2 = |q|^2 + |p|^2 - 2 qp: one matrix product.
        squares = self.patches.square().sum(dim=1) - 2 * queries @ self.patches.T  # (Q, M)
        if sources is not None:
            own = sources[:, None] == self.sources[None]
            squares = squares.masked_fill(own, torch.inf)
        nearest = squares.amin(dim=1) + queries.square().sum(dim=1)
        return nearest.clamp(min=1e-6).sqrt()

    def fill(self, found: Tensor, sources: Tensor, generator: torch.Generator) -> None:
        """Choose from the patches found, (P, C) and (P,): always the one farthest from all chosen.

        Fewer than the memory's size, or one source alone, leave some chosen twice.
        """
        candidates = torch.randperm(len(found), generator=generator)[:_CANDIDATES]
        found, sources = found[candidates], sources[candidates]
        chosen = torch.zeros(len(self.patches), dtype=torch.long)
        distance = torch.full((len(found),), torch.inf)
        for number in range(len(chosen)):
            distance = torch.minimum(distance, (found - found[chosen[number]]).square().sum(dim=1))
            if number + 1 < len(chosen):
                chosen[number + 1] = distance.argmax()
        device = self.patches.device
        self.patches.copy_(found[chosen].to(device))
        self.sources.copy_(sources[chosen].to(device))
        judged, of = found[:_JUDGED].to(device), sources[:_JUDGED].to(device)
        away = self.distances(judged, of)
        away = away[away.isfinite()]
        if len(away):
            self.unit.copy_(away.mean())
