"""One training step of DiffusionAD and its optimiser, for Lightning's loop.

The step follows Sec. 4.3 of arXiv:2303.08730v4: both scales with random steps
and noise, the norm-guided reconstruction, the segmentation of it, and one
joint loss whose gradient reaches both networks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import lightning
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from diffusionad_training import diffusion, losses
from diffusionad_training.config import Config
from diffusionad_training.data.batches import Batch
from diffusionad_training.errors import TrainingError
from diffusionad_training.model import DiffusionAD, Estimate
from diffusionad_training.resume import ResumeState, restore_optimiser, tensors_of

_OF_STEPS = 3  # a stream of random numbers apart from those of batches.py


class TrainingModule(lightning.LightningModule):
    """Both networks, trained jointly; `trained_model` is what is kept.

    With a `time_budget` in seconds the learning rate decays with the time
    spent where that runs out before the steps do, and `spent`, if given, is kept
    at the share of the time that is over. `devices` train together (see parallel).
    `resumed` is where an earlier training stopped.
    """

    def __init__(
        self,
        config: Config,
        *,
        seed: int,
        devices: int = 1,
        time_budget: float | None = None,
        spent: Tensor | None = None,
        resumed: ResumeState | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.model = DiffusionAD(config, noise_seed=seed)
        self.averaged = (
            AveragedModel(self.model, multi_avg_fn=self._average, use_buffers=True)
            if config.optimisation.ema_decay > 0
            else None
        )
        if self.averaged is not None:
            self.averaged.requires_grad_(False)  # nothing there for devices to average
        self._seed = seed
        self._devices = devices
        self._time_budget = time_budget
        self._spent = spent
        self._started = time.monotonic()
        self._resumed = resumed
        if resumed is not None:
            self.model.load_state_dict(resumed.part("model"))
            if self.averaged is not None:
                self.averaged.load_state_dict(resumed.part("averaged"))

    @property
    def step(self) -> int:
        """Optimiser steps done, those of an earlier training included."""
        return self._steps_before + self.global_step

    @property
    def _steps_before(self) -> int:
        """Optimiser steps of the earlier training that this one goes on with."""
        return 0 if self._resumed is None else self._resumed.step

    @property
    def seconds(self) -> float:
        """Time spent training, that of an earlier training included."""
        before = 0.0 if self._resumed is None else self._resumed.seconds
        return before + time.monotonic() - self._started

    def resume_tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, for `resume`."""
        optimiser = self.optimizers()
        assert isinstance(optimiser, LightningOptimizer)
        return tensors_of(self.model, self.averaged, optimiser.optimizer)

    def trained_model(self) -> DiffusionAD:
        """The model to keep: averaged weights where the config asks for them."""
        model = self.model if self.averaged is None else self.averaged.module
        assert isinstance(model, DiffusionAD)
        return model

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the joint loss of one batch, Eq. 11.

        What is random in it depends on the seed and on which batch of all devices'
        it is, so that a resumed training draws what an uninterrupted one would have.
        """
        if self._spent is not None and self._time_budget is not None:
            self._spent.fill_(self.seconds / self._time_budget)
        before = self._steps_before * self.config.optimisation.accumulate + batch_idx
        place = before * self._devices + self.global_rank
        torch.manual_seed(_mixed(self._seed, place))
        noise_loss, mask_loss = self.joint_loss(batch)
        total = noise_loss + mask_loss  # Eq. 11
        if not torch.isfinite(total):
            raise TrainingError(
                f"the loss is {total.item()} at step {self.step} (noise "
                f"{noise_loss.item()}, mask {mask_loss.item()}); lower the learning rates"
            )
        self.log("step", float(self.step))  # Lightning's own count starts anew when resumed
        self.log("noise_loss", noise_loss, prog_bar=True)
        self.log("mask_loss", mask_loss, prog_bar=True)
        return total

    def joint_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Both terms of Eq. 11, the noise loss and the mask loss, each ()."""
        x0, clean = self.model.normalise(batch["images"]), self.model.normalise(batch["clean"])
        restore = self._diffuse if self.config.restoration == "diffusion" else self._autoencode
        reconstruction, noise_loss = restore(x0, clean, batch["anomalous"])
        logits = self.model.segmentation_network(x0, reconstruction).float()
        return noise_loss, losses.mask_loss(batch["masks"], logits, self.config.loss)

    def _diffuse(self, x0: Tensor, clean: Tensor, anomalous: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct images at random steps, and take the noise loss, Eq. 9."""
        model, guidance = self.model, self.config.guidance
        count, device = len(x0), x0.device
        t_s = torch.randint(0, guidance.tau + 1, (count,), device=device)
        t_b = torch.randint(guidance.tau + 1, guidance.last_step + 1, (count,), device=device)
        noise_s, noise_b = torch.randn_like(x0), torch.randn_like(x0)
        alpha_bar_s, alpha_bar_b = model.alpha_bar_at(t_s), model.alpha_bar_at(t_b)
        x_ts = diffusion.add_noise(x0, noise_s, alpha_bar_s)
        x_tb = diffusion.add_noise(x0, noise_b, alpha_bar_b)

        # Both scales in one pass: the batch is twice as large, the network the same.
        both = model.estimate(torch.cat([x_ts, x_tb]), torch.cat([t_s, t_b]))
        estimate_s = Estimate(both.noise[:count], both.x0[:count])
        estimate_b = Estimate(both.noise[count:], both.x0[count:])
        reconstruction = model.reconstruct(x_ts, estimate_s.noise, estimate_b.x0, alpha_bar_s)
        # What the network should see: the clean image, and the noise that leads to it.
        noise_loss = losses.noise_loss(
            self._error(clean, x_ts, estimate_s, alpha_bar_s),
            self._error(clean, x_tb, estimate_b, alpha_bar_b),
            anomalous,
            self.config.loss.restoration_weight,
        )
        return reconstruction, noise_loss

    def _autoencode(self, x0: Tensor, clean: Tensor, anomalous: Tensor) -> tuple[Tensor, Tensor]:
        """Restore images without noise; anomalous ones too, as DRAEM does."""
        restored = self.model.autoencode(x0)
        # The weight that clean images have in the diffusion network's loss.
        error = self.config.noise_network.snr_cap * losses.squared_error(clean, restored)
        reconstruction = restored.clamp(self.model.range_bottom, 1.0)
        return reconstruction, losses.noise_loss(error, error, anomalous, restoration_weight=1.0)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam with a learning rate for each network, warmed up and decayed as configured."""
        rates = self.config.optimisation
        optimiser = Adam(
            [
                {
                    "params": self.model.noise_network.parameters(),
                    "lr": rates.noise_learning_rate,
                },
                {
                    "params": self.model.segmentation_network.parameters(),
                    "lr": rates.segmentation_learning_rate,
                },
            ]
        )
        if self._resumed is not None:
            restore_optimiser(optimiser, self._resumed)
        before = self._steps_before
        schedule = LambdaLR(
            optimiser,
            [
                lambda step: self._rate(before + step),
                lambda step: self._rate(before + step) * self._cycle(before + step),
            ],
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_train_start(self) -> None:
        """Start the clock of the time budget."""
        self._started = time.monotonic()

    def update_average(self) -> None:
        """Take the weights of the optimiser step just done into the average."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def _error(self, clean: Tensor, x_t: Tensor, estimate: Estimate, alpha_bar: Tensor) -> Tensor:
        """Error at each image; a normal one has the very noise that was added as its target."""
        network = self.config.noise_network
        if network.parametrisation == "x0":
            return losses.weighted_x0_error(clean, estimate.x0, alpha_bar, network.snr_cap)
        noise = diffusion.noise_from_x0(x_t, clean, alpha_bar)
        return losses.squared_error(noise, estimate.noise)

    @torch.no_grad()
    def _average(
        self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int
    ) -> None:
        """Update the average in place; a young one forgets faster than the config says.

        Otherwise it would long remember the random start.
        """
        done = self.step
        kept = min(self.config.optimisation.ema_decay, (1 + done) / (10 + done))
        for ours, theirs in zip(averaged, current, strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1 - kept)
            else:
                ours.copy_(theirs)

    def _rate(self, step: int) -> float:
        """Factor on the learning rates: linear warm-up, then a cosine to zero if configured."""
        optimisation = self.config.optimisation
        if step < optimisation.warmup_steps:
            return (step + 1) / optimisation.warmup_steps
        if not optimisation.cosine_decay:
            return 1.0
        progress = step / optimisation.steps
        if self._time_budget is not None:
            progress = max(progress, self._seconds_of_all() / self._time_budget)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def _cycle(self, step: int) -> float:
        """Factor on the segmentation network's rate: a cosine that comes back, if configured."""
        period = self.config.optimisation.segmentation_cosine_period
        return 1.0 if period == 0 else 0.5 * (1 + math.cos(2 * math.pi * step / period))

    def _seconds_of_all(self) -> float:
        """Time spent by the first device's clock: rates must not differ between devices."""
        return self.seconds if self._devices == 1 else self.trainer.strategy.broadcast(self.seconds)


def _mixed(seed: int, place: int) -> int:
    """Make one seed of two numbers, far from the seeds of neighbours."""
    return int(np.random.SeedSequence([seed, _OF_STEPS, place]).generate_state(1, np.uint64)[0])
