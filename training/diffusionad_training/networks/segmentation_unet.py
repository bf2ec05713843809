"""The segmentation U-Net: from an image and its reconstruction to the logits of the anomaly map.

The architecture is that of DRAEM's discriminative network (Zavrtanik et al.,
2021), as DiffusionAD uses it. Comments give shapes as (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffusionad_training.config import SegmentationNetworkConfig
from diffusionad_training.networks.layers import zeroed

INPUT_CHANNELS = 6  # image and reconstruction, three each


class SegmentationUNet(nn.Module):
    """Compare an image with its reconstruction, pixel by pixel and in context.

    `features` are channels of frozen features by their stride; those of a stride that a level
    has are added there. At first they have no say.
    """

    def __init__(
        self, config: SegmentationNetworkConfig, features: Mapping[int, int] | None = None
    ) -> None:
        super().__init__()
        factor, widths = config.unshuffle, config.widths
        self.unshuffle: nn.Module = nn.PixelUnshuffle(factor)
        self.shuffle = nn.PixelShuffle(factor)
        self.pool = nn.MaxPool2d(2)
        inputs = (INPUT_CHANNELS * factor**2, *widths[:-1])
        self.encoder = nn.ModuleList(
            _double_conv(cin, cout) for cin, cout in zip(inputs, widths, strict=True)
        )
        self.strides = config.strides
        self.adapters = nn.ModuleDict(
            {
                str(stride): _adapter(features[stride], width)
                for stride, width in zip(self.strides, widths, strict=True)
                if features and stride in features
            }
        )
        self.upsamplers = nn.ModuleList()
        self.decoder = nn.ModuleList()
        channels = widths[-1]
        for level in reversed(range(len(widths) - 1)):
            # Narrow to the width of the level above the skip, as far as there is one.
            narrowed = widths[max(level - 1, 0)] if level < len(widths) - 2 else widths[level]
            self.upsamplers.append(_upsample_conv(channels, narrowed))
            self.decoder.append(_double_conv(narrowed + widths[level], narrowed))
            channels = narrowed
        self.last = nn.Conv2d(channels, factor**2, 3, padding=1)

    def forward(
        self, image: Tensor, reconstruction: Tensor, features: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """Both (N, 3, H, W), in the model's range -> logits (N, 1, H, W).

        `features` (N, C, H / s, W / s) by stride s, if it was made for some.
        """
        h = self.unshuffle(torch.cat([image, reconstruction], dim=1))
        skips: list[Tensor] = []
        for depth, block in enumerate(self.encoder):
            h = block(h if depth == 0 else self.pool(h))
            if features and (stride := str(self.strides[depth])) in self.adapters:
                h = h + self.adapters[stride](features[self.strides[depth]])
            skips.append(h)
        skips.pop()  # the deepest is where the way up begins
        for upsample, block in zip(self.upsamplers, self.decoder, strict=True):
            h = block(torch.cat([upsample(h), skips.pop()], dim=1))
        out: Tensor = self.shuffle(self.last(h))
        return out


def _conv(cin: int, cout: int) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


def _double_conv(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(*_conv(cin, cout), *_conv(cout, cout))


def _upsample_conv(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), *_conv(cin, cout)
    )


def _adapter(cin: int, cout: int) -> nn.Sequential:
    """From features to a level of the encoder; it begins by adding nothing."""
    return nn.Sequential(
        nn.BatchNorm2d(cin),
        nn.Conv2d(cin, cout, 1),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
        zeroed(nn.Conv2d(cout, cout, 3, padding=1)),
    )
