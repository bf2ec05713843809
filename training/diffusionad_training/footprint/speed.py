"""How fast a detector scores and trains on this machine, measured in a few passes.

Weights and images are untrained and blank: neither changes how long a pass takes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffusionad_training.config import Config
from diffusionad_training.data.batches import Batch, to_device
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.footprint.cost import blank_batch, training_bytes

_ENOUGH = 3.0  # seconds to measure for, once warm
_PATIENCE = 60.0  # seconds that one training step may take at most to be tried
_SHARE_OF_MEMORY = 0.8  # that training may be estimated to take to be tried


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured, and on what."""

    device: str
    inference_images_per_s: float  # one image at a time
    training_images_per_s: float | None  # at the config's batch; None if not measured
    not_measured: str | None  # why training was not


def measure(config: Config) -> Speed:
    """Time a few passes and training steps on the best device there is."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    module = TrainingModule(config, seed=0).to(device)
    batch = to_device(blank_batch(config), device)
    model, image = module.model.eval(), batch["images"][:1]
    with torch.no_grad():
        inference = _seconds(lambda: model(image), device)
    # Backward costs twice the forward pass, and computing it again once more.
    passes = 4 if config.detector.noise_network.recompute else 3
    step = passes * inference * len(batch["images"])
    reason = _too_much(config, device, step)
    rate = None
    if reason is None:
        rate = len(batch["images"]) / _seconds(_step(module.train(), batch, device), device)
    return Speed(
        device=torch.cuda.get_device_name()
        if on_gpu
        else f"CPU, {torch.get_num_threads()} threads",
        inference_images_per_s=1 / inference,
        training_images_per_s=rate,
        not_measured=reason,
    )


def _step(module: TrainingModule, batch: Batch, device: torch.device) -> Callable[[], None]:
    """Make what trains one step."""
    optimiser = torch.optim.Adam(module.model.parameters())
    lowered = module.config.training.optimisation.precision == "bf16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=lowered):
            noise_loss, mask_loss = module.joint_loss(batch)
        torch.autograd.backward(noise_loss + mask_loss)
        optimiser.step()
        optimiser.zero_grad()

    return step


def _too_much(config: Config, device: torch.device, step: float) -> str | None:
    """Say why a training step, of so many seconds, is not to be tried here."""
    if step > _PATIENCE:
        return f"a step would take about {step:.0f} s"
    needed, there = training_bytes(config), _memory(device)
    if needed > _SHARE_OF_MEMORY * there:
        return f"needs about {needed / 2**30:.0f} GiB, there are {there / 2**30:.0f}"
    return None


def _memory(device: torch.device) -> int:
    """Bytes that the device has free, or the machine has in all."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time some work: the fastest of several, as what else the machine does only adds."""

    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    first = once()
    if first > _ENOUGH:  # of something this slow the warming up is a small part
        return first
    times = [once()]
    while sum(times) < _ENOUGH:
        times.append(once())
    return min(times)
