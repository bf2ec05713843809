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

from diffusionad_training.config import Config
from diffusionad_training.data.batches import Batch
from diffusionad_training.errors import TrainingError
from diffusionad_training.method import diffusion, losses
from diffusionad_training.method.model import DiffusionAD, Estimate
from diffusionad_training.run.initial_weights import InitialWeights
from diffusionad_training.run.resume import ResumeState, restore_optimiser, tensors_of

_OF_STEPS = 3  # a stream of random numbers apart from those of batches.py


class TrainingModule(lightning.LightningModule):
    """Both networks, trained jointly; `trained_model` is what is kept.

    With a `time_budget` in seconds the learning rate decays with the time
    spent where that runs out before the steps do, and `spent`, if given, is kept
    at the share of the time that is over. `devices` train together (see parallel).
    `initial` is what to begin with in place of random weights, `resumed` where an earlier
    training stopped.
    """

    def __init__(
        self,
        config: Config,
        *,
        seed: int,
        devices: int = 1,
        time_budget: float | None = None,
        spent: Tensor | None = None,
        initial: InitialWeights | None = None,
        resumed: ResumeState | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.model = DiffusionAD(config, noise_seed=seed)
        if initial is not None:
            self.model.load_state_dict(self.model.state_dict() | initial.tensors)
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
        self._progress = 0.0
        # Of the batch at hand: one more with the segmentation network, one more on whole images.
        self._stage = 0
        self.averaged_stage = 0 if resumed is None else resumed.averaged_stage
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
        self._read_clock()
        before = self._steps_before * self.config.optimisation.accumulate + batch_idx
        place = before * self._devices + self.global_rank
        torch.manual_seed(_mixed(self._seed, place))
        segmented = self._progress >= self.config.optimisation.segmentation_from
        is_whole = batch["images"].shape[1] == self.config.size
        self._stage = int(segmented) + int(is_whole)
        noise_loss, mask_loss = self.joint_loss(batch, segmented=segmented)
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

    def joint_loss(self, batch: Batch, *, segmented: bool = True) -> tuple[Tensor, Tensor]:
        """Both terms of Eq. 11, the noise loss and the mask loss, each (); 0 if not segmented."""
        x0, clean = self.model.normalise(batch["images"]), self.model.normalise(batch["clean"])
        if not self.config.is_diffusion:
            restore = self._autoencode
        else:
            restore = self._diffuse if self.config.guidance.is_guided else self._denoise_small
        reconstruction, noise_loss = restore(x0, clean, batch)
        if not segmented:
            return noise_loss, torch.zeros_like(noise_loss)
        logits = self.model.segmentation_network(x0, reconstruction).float()
        return noise_loss, losses.mask_loss(batch["masks"], logits, self.config.loss)

    def _diffuse(self, x0: Tensor, clean: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Reconstruct images at random steps, and take the noise loss, Eq. 9."""
        model, guidance = self.model, self.config.guidance
        count, device = len(x0), x0.device
        t_s = _random_steps(guidance.small_steps, count, device)
        t_b = _random_steps(guidance.large_steps, count, device)
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
        weights = self._pixel_weights(batch["masks"])
        noise_loss = losses.noise_loss(
            self._error(clean, x_ts, estimate_s, alpha_bar_s, weights),
            self._error(clean, x_tb, estimate_b, alpha_bar_b, weights),
            batch["anomalous"],
            self.config.loss.restoration_weight,
        )
        return reconstruction, noise_loss

    def _denoise_small(self, x0: Tensor, clean: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `_diffuse` without guidance: Eqs. 6 and 9 of the small scale alone."""
        t_s = _random_steps(self.config.guidance.small_steps, len(x0), x0.device)
        alpha_bar = self.model.alpha_bar_at(t_s)
        x_ts = diffusion.add_noise(x0, torch.randn_like(x0), alpha_bar)
        estimate = self.model.estimate(x_ts, t_s)
        weights = self._pixel_weights(batch["masks"])
        error = self._error(clean, x_ts, estimate, alpha_bar, weights)
        noise_loss = losses.noise_loss(
            error, error, batch["anomalous"], self.config.loss.restoration_weight
        )
        return estimate.x0.clamp(self.model.range_bottom, 1.0), noise_loss

    def _autoencode(self, x0: Tensor, clean: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Restore images without noise; anomalous ones too, as DRAEM does."""
        restored = self.model.autoencode(x0)
        # The weight that clean images have in the diffusion network's loss.
        error = self.config.noise_network.snr_cap * losses.squared_error(
            clean, restored, self._pixel_weights(batch["masks"])
        )
        reconstruction = restored.clamp(self.model.range_bottom, 1.0)
        return reconstruction, losses.noise_loss(
            error, error, batch["anomalous"], restoration_weight=1.0
        )

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
        self._read_clock()  # a resumed training begins with the rate that it had come to
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
        """Take the weights of the optimiser step just done into the average.

        It begins anew when the segmentation network joins in, and when whole images follow
        windows: it would long remember untrained weights, and other images' statistics.
        """
        if self.averaged is None:
            return
        if self._stage > self.averaged_stage:
            self.averaged.n_averaged.zero_()
            self.averaged_stage = self._stage
        self.averaged.update_parameters(self.model)

    def _pixel_weights(self, masks: Tensor) -> Tensor | None:
        """Weights of the pixels in Eq. 9, (N, 1, H, W); None: all alike."""
        weight = self.config.loss.anomaly_weight
        return None if weight == 1 else torch.where(masks > 0, weight, 1.0)

    def _error(
        self,
        clean: Tensor,
        x_t: Tensor,
        estimate: Estimate,
        alpha_bar: Tensor,
        weights: Tensor | None,
    ) -> Tensor:
        """Error at each image; a normal one has the very noise that was added as its target."""
        network = self.config.noise_network
        if network.parametrisation == "x0":
            return losses.weighted_x0_error(clean, estimate.x0, alpha_bar, network.snr_cap, weights)
        noise = diffusion.noise_from_x0(x_t, clean, alpha_bar)
        return losses.squared_error(noise, estimate.noise, weights)

    @torch.no_grad()
    def _average(
        self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int
    ) -> None:
        """Update the average of `count` steps in place; a young one forgets faster than asked.

        Otherwise it would long remember the random start.
        """
        kept = min(self.config.optimisation.ema_decay, (1 + count) / (10 + count))
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
        progress = max(step / optimisation.steps, self._progress)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def _cycle(self, step: int) -> float:
        """Factor on the segmentation network's rate: a cosine that comes back, if configured."""
        period = self.config.optimisation.segmentation_cosine_period
        return 1.0 if period == 0 else 0.5 * (1 + math.cos(2 * math.pi * step / period))

    def _read_clock(self) -> None:
        """Find how much of the training is over, by steps or by time, once for the whole step.

        The first device's clock counts: what depends on it must not differ between devices.
        """
        self._progress = self.step / self.config.optimisation.steps
        if self._time_budget is None:
            return
        spent = self.seconds / self._time_budget
        if self._devices > 1:
            spent = self.trainer.strategy.broadcast(spent)
        self._progress = max(self._progress, spent)
        if self._spent is not None:
            self._spent.fill_(spent)


def _random_steps(steps: range, count: int, device: torch.device) -> Tensor:
    """Draw one of the steps for each image, (count,)."""
    return torch.randint(steps.start, steps.stop, (count,), device=device)


def _mixed(seed: int, place: int) -> int:
    """Make one seed of two numbers, far from the seeds of neighbours."""
    return int(np.random.SeedSequence([seed, _OF_STEPS, place]).generate_state(1, np.uint64)[0])
