"""The state of an unfinished training, so that it goes on as if it had never stopped.

RUN/resume.safetensors holds weights, averages and the optimiser's moments,
with the step and the time spent in its header: one file, replaced at one
stroke, and no pickle. Random numbers need no state: those of step k depend on
the seed and k alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from diffusionad_training.errors import CheckpointError
from diffusionad_training.run.checkpoint import RESUME_FILE


@dataclass(frozen=True)
class ResumeState:
    """Where a training stands. Tensors are named `<part>.<name>`."""

    step: int  # optimiser steps done
    seconds: float  # spent on them
    best: float | None  # score of the weights kept so far, where they are selected
    selected_step: int  # of those weights
    averaged_stage: int  # of the training, in which the average began
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """Give the tensors of one part, by their own names."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }


def tensors_of(
    model: nn.Module, averaged: nn.Module | None, optimiser: Optimizer
) -> dict[str, Tensor]:
    """Collect every tensor that training changes."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def restore_optimiser(optimiser: Optimizer, state: ResumeState) -> None:
    """Give an optimiser its moments back."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.part("optimiser").items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = tensor
    document: dict[str, Any] = optimiser.state_dict()
    optimiser.load_state_dict({**document, "state": moments})


def resume_files(state: ResumeState) -> dict[str, bytes]:
    """Render the state as the content of its file, by its name."""
    header = {"step": str(state.step), "seconds": repr(state.seconds)}
    header |= {"best": repr(state.best), "selected_step": str(state.selected_step)}
    header["averaged_stage"] = str(state.averaged_stage)
    return {RESUME_FILE: safetensors.torch.save(state.tensors, metadata=header)}


def load(folder: Path) -> ResumeState:
    """Read the state. Raises `CheckpointError`."""
    path = folder / RESUME_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; there is no unfinished training to go on with. Train without "
            "--resume"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        best = header["best"]
        return ResumeState(
            step=int(header["step"]),
            seconds=float(header["seconds"]),
            best=None if best == "None" else float(best),
            selected_step=int(header["selected_step"]),
            averaged_stage=int(header["averaged_stage"]),
            tensors=tensors,
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{path}: the training cannot be resumed from it: {exc}") from exc
