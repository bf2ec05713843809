"""The learning rates: one for each network, warmed up and decayed as configured.

A rate is a factor on its configured value, at an optimiser step counted from 0 and a share of
the training that is over, by steps or by time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from diffusionad_training.config import OptimisationConfig
from diffusionad_training.method.model import DiffusionAD


def optimiser_of(model: DiffusionAD, config: OptimisationConfig) -> Optimizer:
    """Adam over both networks, jointly (Eq. 11), each with a rate of its own."""
    return Adam(
        [
            {"params": model.noise_network.parameters(), "lr": config.noise_learning_rate},
            {
                "params": model.segmentation_network.parameters(),
                "lr": config.segmentation_learning_rate,
            },
        ]
    )


def schedule(
    optimiser: Optimizer,
    config: OptimisationConfig,
    *,
    steps_before: int,
    progress: Callable[[], float],
) -> LambdaLR:
    """Set the rates of `optimiser_of` before each step.

    `steps_before` is of the training that this one goes on with, `progress` tells the
    share that is over.
    """

    def noise_rate(step: int) -> float:
        return decayed(steps_before + step, progress(), config)

    def segmentation_rate(step: int) -> float:
        return noise_rate(step) * cycled(steps_before + step, config)

    return LambdaLR(optimiser, [noise_rate, segmentation_rate])


def decayed(step: int, progress: float, config: OptimisationConfig) -> float:
    """Linear warm-up, then a cosine to zero if configured."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if not config.cosine_decay:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(max(step / config.steps, progress), 1.0)))


def cycled(step: int, config: OptimisationConfig) -> float:
    """A cosine that comes back, on top of the segmentation network's rate, if configured."""
    period = config.segmentation_cosine_period
    return 1.0 if period == 0 else 0.5 * (1 + math.cos(2 * math.pi * step / period))
