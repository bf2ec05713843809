"""What happens between the steps of a training: averaging, checkpoints, selection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from diffusionad_training.data.batches import Batch, to_device
from diffusionad_training.fit import sample_sheet
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.throughput import Throughput
from diffusionad_training.fit.validation import ValidationSet
from diffusionad_training.run.checkpoint import (
    SAMPLES_FOLDER,
    Origin,
    record_of,
    run_files,
    write_checkpoint,
)
from diffusionad_training.run.resume import ResumeState, resume_files

Report = Callable[[str], None]


class StepCallback(Callback, ABC):
    """Calls `on_step` after each optimiser step, however many batches make one."""

    @abstractmethod
    def on_step(self, trainer: lightning.Trainer, module: TrainingModule, batch: Batch) -> None:
        """Do what is to be done after a step."""

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Tell whether the batch ended a step."""
        assert isinstance(pl_module, TrainingModule)
        if (batch_idx + 1) % pl_module.config.training.optimisation.accumulate == 0:
            self.on_step(trainer, pl_module, batch)


class Averaging(StepCallback):
    """Average the weights after each optimiser step, before anything looks at them."""

    def on_step(self, trainer: lightning.Trainer, module: TrainingModule, batch: Batch) -> None:
        """Update the average."""
        module.update_average()


class Checkpoints(StepCallback):
    """Save the run, draw a sample sheet and report, every so many steps and at the end.

    Of several processes (see parallel) the first does so, while the others wait.
    """

    def __init__(
        self,
        output: Path,
        origin: Origin,
        samples: Batch,
        *,
        every: int,
        report: Report,
        validation: ValidationSet,
        throughput: Throughput,
        keep_best: bool = False,
        patience: int | None = None,
        resumed: ResumeState | None = None,
    ) -> None:
        self.saved_step: int | None = None  # the last that is on disk
        self.report = report
        self._output = output
        self._origin = origin
        self._samples = samples
        self._every = every
        self._validation = validation
        self._throughput = throughput
        self._keep_best = keep_best
        self._patience = patience
        self._best = None if resumed is None else resumed.best
        self._selected_step = 0 if resumed is None else resumed.selected_step
        self._without_better = 0

    def on_step(self, trainer: lightning.Trainer, module: TrainingModule, batch: Batch) -> None:
        """Save and report if it is time to."""
        if module.step % self._every:
            return
        if trainer.is_global_zero:
            losses, pace = trainer.callback_metrics, self._throughput.describe()
            said = self._save(module)
            self.report(
                f"step {module.step}  noise loss {losses['noise_loss']:.4f}  "
                f"mask loss {losses['mask_loss']:.4f}{pace}  "
                f"{module.seconds / 60:.1f} min{said}"
            )
        if self._patience is not None:
            enough = self._without_better >= self._patience
            if enough:
                self.report(f"no better weights for {self._patience} checkpoints: stopped early")
            # The first process alone knows; all of them must stop.
            if trainer.strategy.reduce_boolean_decision(enough, all=False):
                trainer.should_stop = True
        self._throughput.restart()

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save the last step."""
        self._save_unless_saved(trainer, pl_module)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Save what an interrupted run has come to; what failed otherwise is not to be trusted."""
        if isinstance(exception, KeyboardInterrupt) and pl_module.global_step > 0:
            self._save_unless_saved(trainer, pl_module)

    def _save_unless_saved(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        assert isinstance(module, TrainingModule)
        if trainer.is_global_zero and self.saved_step != module.step:
            self._save(module)

    def _save(self, module: TrainingModule) -> str:
        """Write the run as it stands now, with a picture of it at work; say how good it is."""
        said, kept = self._judge(module)
        model, step = module.trained_model(), module.step
        state = ResumeState(
            step=step,
            seconds=module.seconds,
            best=self._best,
            selected_step=self._selected_step,
            averaged_stage=module.averaged_stage,
            tensors=module.resume_tensors(),
        )
        write_checkpoint(self._output, kept | resume_files(state))
        was_training = model.training
        model.eval()
        sheet = sample_sheet.sample_sheet(model, to_device(self._samples, module.device))
        model.train(was_training)
        sample_sheet.save_sheet(sheet, self._output / SAMPLES_FOLDER / f"step-{step:06d}.png")
        self.saved_step = step
        return said

    def _judge(self, module: TrainingModule) -> tuple[str, dict[str, bytes]]:
        """Judge the weights: how they did, and the run's files if they are to be kept."""
        model, step = module.trained_model(), module.step
        validation = self._validation.judge(model)
        said = (
            f"  validation AUROC {100 * validation.image_auroc:.1f}, "
            f"pixel AP {100 * validation.pixel_average_precision:.1f}"
        )
        is_better = self._best is None or validation.score > self._best
        self._without_better = 0 if is_better else self._without_better + 1
        if is_better:
            self._best = validation.score
        if is_better or not self._keep_best:
            self._selected_step = step
            record = record_of(self._origin, steps=step, validation_score=validation.score)
            return said, run_files(module.config, model.state_dict(), record)
        return said, {}
