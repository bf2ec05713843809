"""One training step of DiffusionAD and its optimiser, for Lightning's loop.

The step follows Sec. 4.3 of arXiv:2303.08730v4: the reconstruction (method/restoration.py),
the segmentation of it, and one joint loss whose gradient reaches both networks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import lightning
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from diffusionad_training.config import Config
from diffusionad_training.data.batches import Batch, GoodImages
from diffusionad_training.errors import TrainingError
from diffusionad_training.fit import rates
from diffusionad_training.method import losses
from diffusionad_training.method.model import DiffusionAD
from diffusionad_training.method.restoration import TrainingImages
from diffusionad_training.networks.pretrained import load_backbone
from diffusionad_training.run.initial_weights import InitialWeights
from diffusionad_training.run.resume import ResumeState, restore_optimiser, tensors_of

_OF_STEPS = 3  # a stream of random numbers apart from those of batches.py


class TrainingModule(lightning.LightningModule):
    """Both networks, trained jointly; `trained_model` is what is kept.

    With a `time_budget` in seconds the learning rate decays with the time
    spent where that runs out before the steps do, and `spent`, if given, is kept
    at the share of the time that is over. `devices` train together (see parallel).
    `initial` is what to begin with in place of random weights, `normal` what features of good
    parts are learnt from, `resumed` where an earlier training stopped.
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
        normal: GoodImages | None = None,
        resumed: ResumeState | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self._optimisation = config.training.optimisation
        self.model = DiffusionAD(config.detector, noise_seed=seed)
        if initial is not None:
            self.model.load_state_dict(self.model.state_dict() | initial.tensors)
        if self.model.features is not None and normal is not None and resumed is None:
            self.model.features.backbone = load_backbone()
            self.model.features.learn(normal.batches(), seed)
        self.averaged = (
            AveragedModel(self.model, multi_avg_fn=self._average, use_buffers=True)
            if self._optimisation.ema_decay > 0
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
        before = self._steps_before * self._optimisation.accumulate + batch_idx
        place = before * self._devices + self.global_rank
        torch.manual_seed(_mixed(self._seed, place))
        segmented = self._progress >= self._optimisation.segmentation_from
        is_whole = int(batch["side"]) == self.config.detector.size
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
        images = TrainingImages(
            x0,
            clean,
            batch["masks"],
            batch["anomalous"],
            batch["misplaced"],
            [(int(top), int(left)) for top, left in batch["corners"]],
            int(batch["side"]),
        )
        loss = self.config.training.loss
        reconstruction, noise_loss = self.model.restoration.train(self.model, images, loss)
        if not segmented:
            return noise_loss, torch.zeros_like(noise_loss)
        seen = images.windows
        logits = self.model.segment(seen.x0, reconstruction, batch["sources"]).float()
        return noise_loss, losses.mask_loss(seen.masks, logits, loss)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam with a learning rate for each network, warmed up and decayed as configured."""
        optimiser = rates.optimiser_of(self.model, self._optimisation)
        if self._resumed is not None:
            restore_optimiser(optimiser, self._resumed)
        self._read_clock()  # a resumed training begins with the rate that it had come to
        schedule = rates.schedule(
            optimiser,
            self._optimisation,
            steps_before=self._steps_before,
            progress=lambda: self._progress,
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

    @torch.no_grad()
    def _average(
        self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int
    ) -> None:
        """Update the average of `count` steps in place; a young one forgets faster than asked.

        Otherwise it would long remember the random start.
        """
        kept = min(self._optimisation.ema_decay, (1 + count) / (10 + count))
        for ours, theirs in zip(averaged, current, strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1 - kept)
            else:
                ours.copy_(theirs)

    def _read_clock(self) -> None:
        """Find how much of the training is over, by steps or by time, once for the whole step.

        The first device's clock counts: what depends on it must not differ between devices.
        """
        self._progress = self.step / self._optimisation.steps
        if self._time_budget is None:
            return
        spent = self.seconds / self._time_budget
        if self._devices > 1:
            spent = self.trainer.strategy.broadcast(spent)
        self._progress = max(self._progress, spent)
        if self._spent is not None:
            self._spent.fill_(spent)


def _mixed(seed: int, place: int) -> int:
    """Make one seed of two numbers, far from the seeds of neighbours."""
    return int(np.random.SeedSequence([seed, _OF_STEPS, place]).generate_state(1, np.uint64)[0])
