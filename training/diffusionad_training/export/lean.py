"""A trained model rewritten to compute the same with less work, for its graphs.

Every rewriting here is exact but for rounding. They are made of a copy, when a model is
exported: training keeps the form in which it is read, and its weights their names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusionad_training.method.features import FeatureMemory
from diffusionad_training.method.model import DiffusionAD

_PATCHES_AT_ONCE = 1_000  # of the memory: their products with an image's still lie in the cache


def lean(model: DiffusionAD) -> DiffusionAD:
    """Copy a model for export: the same answers, fewer and cheaper operations."""
    served = copy.deepcopy(model)
    noise, segmentation = served.noise_network, served.segmentation_network
    noise.first = over_pixels(noise.first, model.restoration.network.unshuffle)
    first = cast(nn.Sequential, segmentation.encoder[0])
    first[0] = over_pixels(cast(nn.Conv2d, first[0]), model.config.segmentation_network.unshuffle)
    noise.unshuffle = segmentation.unshuffle = nn.Identity()
    for adapter in cast(Iterable[nn.Sequential], segmentation.adapters.values()):
        norm, conv = cast(nn.BatchNorm2d, adapter[0]), cast(nn.Conv2d, adapter[1])
        adapter[0], adapter[1] = nn.Identity(), after_norm(norm, conv)
    if served.features is not None and served.features.memory is not None:
        served.features.memory = ServedMemory(served.features.memory)
    return served


def over_pixels(conv: nn.Conv2d, factor: int) -> nn.Conv2d:
    """Convolve pixels in strides of `factor`, as `conv` does those that are unshuffled by it.

    Moving the pixels takes about as long as convolving them.
    """
    cout, cin, height, width = conv.weight.shape
    above, left = cast(tuple[int, int], conv.padding)
    strided = nn.Conv2d(
        cin // factor**2,
        cout,
        (height * factor, width * factor),
        stride=factor,
        padding=(above * factor, left * factor),
    )
    # (cout, c, row in block, column in block, block below, block to the right)
    blocks = conv.weight.detach().reshape(cout, -1, factor, factor, height, width)
    strided.weight = nn.Parameter(blocks.permute(0, 1, 4, 2, 5, 3).reshape(strided.weight.shape))
    strided.bias = conv.bias
    return strided


@torch.no_grad()
def after_norm(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """Fold a normalisation into the 1x1 convolution behind it."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight / (variance + norm.eps).sqrt()
    folded = copy.deepcopy(conv)
    folded.weight.mul_(scale[:, None, None])
    cast(Tensor, folded.bias).add_(conv.weight[:, :, 0, 0] @ (norm.bias - mean * scale))
    return folded


class ServedMemory(FeatureMemory):
    """A memory for images that were never trained on: one product for a block of its patches."""

    def __init__(self, memory: FeatureMemory) -> None:
        super().__init__(len(memory.patches))
        self.load_state_dict(memory.state_dict())
        # |p|^2 stands beside -2 p, so that adding it is no pass over all the products.
        squares = self.patches.square().sum(dim=1, keepdim=True)
        table = torch.cat([-2 * self.patches, squares], dim=1).T  # (C + 1, M)
        self.blocks = tuple(torch.split(table, _PATCHES_AT_ONCE, dim=1))

    def distances(self, queries: Tensor, sources: Tensor | None = None) -> Tensor:
        """(Q, C) -> (Q,), to the nearest patch; `sources` have no say."""
        with_one = F.pad(queries, (0, 1), value=1.0)
        nearest = torch.stack([(with_one @ block).amin(dim=1) for block in self.blocks])
        squares = nearest.amin(dim=0) + queries.square().sum(dim=1)
        return squares.clamp(min=1e-6).sqrt()
