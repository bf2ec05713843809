"""What several of the networks are built with."""

from __future__ import annotations

from torch import nn


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """Start at zero, so that what it is added to begins as it would be without it."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
