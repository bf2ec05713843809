"""EfficientNet-Lite0 up to stride 16, frozen: what an image shows, at four resolutions.

Tan and Le (2019) in the form without squeeze-and-excitation and with ReLU6, which runs
well on every machine. Normalisation is folded into the convolutions; nothing of it is
trained. Weights come from `pretrained.py`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (2, 4, 8, 16)  # of the features, pixels
CHANNELS = (16, 24, 40, 112)  # of the features at each stride
SHARPEST = 6.0  # of ReLU6

# Kernel, stride, channels in and out of each block; all but the first widen them six times.
_BLOCKS = (
    (3, 1, 32, 16),
    *((3, 2, 16, 24), (3, 1, 24, 24)),
    *((5, 2, 24, 40), (5, 1, 40, 40)),
    *((3, 2, 40, 80), (3, 1, 80, 80), (3, 1, 80, 80)),
    *((5, 1, 80, 112), (5, 1, 112, 112), (5, 1, 112, 112)),
)
_LAST_OF_STRIDE = (0, 2, 4, 10)
_EXPANSION = 6


class EfficientNetLite0(nn.Module):
    """Features of pictures. The weights are fixed, whatever is trained around them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Convolution(3, 32, kernel=3, stride=2)
        self.blocks = nn.ModuleList(
            Block(cin, cout, kernel=kernel, stride=stride, expansion=_EXPANSION if number else 1)
            for number, (kernel, stride, cin, cout) in enumerate(_BLOCKS)
        )
        self.requires_grad_(False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] -> features at each of STRIDES, (N, C, H / s, W / s).

        H and W must be multiples of the largest stride.
        """
        # As its authors trained it: 127 and 128 grey levels.
        h = self.first((pictures * 255 - 127) / 128)
        features = []
        for number, block in enumerate(self.blocks):
            h = block(h)
            if number in _LAST_OF_STRIDE:
                features.append(h)
        return features


class Convolution(nn.Module):
    """A convolution with its folded normalisation as bias; ReLU6 unless `linear`."""

    def __init__(
        self,
        cin: int,
        cout: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.linear = linear
        # TensorFlow's "same": for even sides and stride 2 it adds more below and to the right.
        before = (kernel - stride) // 2
        self.padding = (before, kernel - stride - before) * 2
        self.conv = nn.Conv2d(cin, cout, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H / stride, W / stride)."""
        h: Tensor = self.conv(F.pad(x, self.padding))
        return h if self.linear else h.clamp(0.0, SHARPEST)


class Block(nn.Module):
    """Widen, look around in each channel by itself, and narrow again."""

    def __init__(self, cin: int, cout: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        self.widen = Convolution(cin, wide, kernel=1) if expansion > 1 else nn.Identity()
        self.look = Convolution(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.narrow = Convolution(wide, cout, kernel=1, linear=True)
        self.keeps_shape = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H / stride, W / stride)."""
        h: Tensor = self.narrow(self.look(self.widen(x)))
        return x + h if self.keeps_shape else h
