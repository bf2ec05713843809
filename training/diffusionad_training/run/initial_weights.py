"""Weights to begin a training with, from an earlier run, of another product maybe.

Denoising, repainting and comparing are much the same for every product: what one run has
learnt of them, the next need not learn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from diffusionad_training.config import Config
from diffusionad_training.config.settings import differences
from diffusionad_training.errors import CheckpointError
from diffusionad_training.run.checkpoint import load_run

# Settings that the weights depend on; and those among them which they do not.
_OF_WEIGHTS = (
    "signed_range",
    "restoration",
    "schedule.",
    "noise_network.",
    "segmentation_network.",
)
_FREE = ("noise_network.recompute", "noise_network.dropout")


@dataclass(frozen=True)
class InitialWeights:
    """The weights of both networks, by their names in `DiffusionAD`."""

    tensors: dict[str, Tensor]
    digest: str  # SHA-256 of the file that they are from


def load_initial_weights(folder: Path, config: Config) -> InitialWeights:
    """Read the weights of an earlier run for a new one of `config`.

    Images may be of another size or product, and the fixed noise stays the new run's own. Raises
    `CheckpointError` if there is no run, or its networks are not those of `config`.
    """
    run = load_run(folder)
    others = [
        name
        for name in differences(run.config, config)
        if name.startswith(_OF_WEIGHTS) and name not in _FREE
    ]
    if others:
        raise CheckpointError(
            f"{folder}: its weights are of other networks ({', '.join(others)} differ); begin from "
            "a run of the same preset and settings, or without --from"
        )
    weights = {
        name: tensor for name, tensor in run.model.state_dict().items() if "_network." in name
    }
    return InitialWeights(weights, run.weights_digest)
