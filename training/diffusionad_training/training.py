"""Train a detector: from a folder of good images to a run folder."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from diffusionad_client.images import IMAGE_SUFFIXES
from diffusionad_training import pictures
from diffusionad_training.checkpoint import RunRecord, save_held_out, save_run
from diffusionad_training.config import Config
from diffusionad_training.data import layout
from diffusionad_training.data.batches import Batch, TrainingBatches, to_device
from diffusionad_training.data.images import load_all
from diffusionad_training.data.split import hold_out
from diffusionad_training.errors import DataError
from diffusionad_training.training_module import TrainingModule

MIN_TRAINING_IMAGES = 2  # one to train on and one to hold out
SAMPLES_FOLDER = "samples"

Report = Callable[[str], None]


def train(
    data: Path,
    output: Path,
    config: Config,
    *,
    textures: Path | None = None,
    held_out_share: float = 0.15,
    seed: int = 0,
    time_budget: float | None = None,
    workers: int = 1,
    milestone_steps: int = 250,
    progress: bool = False,
    report: Report = lambda line: None,
) -> TrainingModule:
    """Train on the good images under `data` and write the run into `output`.

    `textures` is a folder of pictures for synthetic anomalies. A share of the
    good images is held out, by group, for the thresholds. `time_budget`, in
    seconds, ends the run early, the learning rate decaying towards that end.
    Every `milestone_steps` the run is saved and described through `report`.

    Raises `DataError`, `ConfigError` or `TrainingError`.
    """
    paths = layout.training_images(data)
    if len(paths) < MIN_TRAINING_IMAGES:
        raise DataError(f"{data}: {len(paths)} good image; training needs {MIN_TRAINING_IMAGES}")
    held = set(hold_out(layout.groups(data, paths), held_out_share, seed))
    if not held:
        raise DataError(
            f"{data}: all good images are one group in {layout.GROUPS_FILE}, so that none can be "
            "held out for the thresholds"
        )
    kept = [path for index, path in enumerate(paths) if index not in held]
    report(f"{len(kept)} good images to train on, {len(held)} held out for the thresholds")
    record = RunRecord(
        data=data.resolve().name,
        data_digest=layout.digest(data, kept),
        training_images=len(kept),
        held_out=tuple(paths[index].relative_to(data).as_posix() for index in sorted(held)),
        seed=seed,
        steps=0,
    )
    lightning.seed_everything(seed, verbose=False)
    batches = TrainingBatches(
        load_all(kept, config.size),
        None if textures is None else load_textures(textures, config.size),
        config,
        count=config.optimisation.steps,
        seed=seed,
    )
    save_held_out(output, load_all([paths[index] for index in sorted(held)], config.size))
    module = TrainingModule(config, seed=seed, time_budget=time_budget)
    milestones = Milestones(output, record, batches[0], every=milestone_steps, report=report)
    with _quiet_lightning():
        _trainer(module, output, milestones, time_budget, progress).fit(
            module, DataLoader(batches, batch_size=None, num_workers=workers)
        )
    milestones.save(module)
    return module


def load_textures(folder: Path, size: int) -> NDArray[np.uint8]:
    """Load a folder of textures, searched at every depth: (N, size, size, 3) uint8."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of textures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: no images to take textures from")
    return load_all(paths, size)


class Milestones(Callback):
    """Save the run, draw a sample sheet and report, every so many steps."""

    def __init__(
        self, output: Path, record: RunRecord, samples: Batch, *, every: int, report: Report
    ) -> None:
        self._output = output
        self._record = record
        self._samples = samples
        self._every = every
        self._report = report
        self._started = time.monotonic()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start counting time."""
        self._started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Mark a milestone if it is time for one."""
        if trainer.global_step % self._every:
            return
        assert isinstance(pl_module, TrainingModule)
        self.save(pl_module)
        losses = trainer.callback_metrics
        elapsed = time.monotonic() - self._started
        images = trainer.global_step * len(batch["images"])
        self._report(
            f"step {trainer.global_step}  noise loss {losses['noise_loss']:.4f}  "
            f"mask loss {losses['mask_loss']:.4f}  {images / elapsed:.1f} images/s  "
            f"{elapsed / 60:.1f} min"
        )

    def save(self, module: TrainingModule) -> None:
        """Write the run as it stands now, with a picture of it at work."""
        model = module.trained_model()
        record = RunRecord(**{**vars(self._record), "steps": module.global_step})
        save_run(self._output, module.config, model.state_dict(), record)
        was_training = model.training
        model.eval()
        sheet = pictures.sample_sheet(model, to_device(self._samples, module.device))
        model.train(was_training)
        pictures.save_sheet(
            sheet, self._output / SAMPLES_FOLDER / f"step-{module.global_step:06d}.png"
        )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips, device lists and notes on its own internals from the user."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


def _trainer(
    module: TrainingModule,
    output: Path,
    milestones: Milestones,
    time_budget: float | None,
    progress: bool,
) -> lightning.Trainer:
    optimisation = module.config.optimisation
    callbacks: list[Callback] = [milestones]
    if progress:
        callbacks.append(RichProgressBar())
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=optimisation.steps,
        max_time=None if time_budget is None else timedelta(seconds=time_budget),
        gradient_clip_val=optimisation.gradient_clip or None,
        callbacks=callbacks,
        logger=CSVLogger(output, name="logs", version=""),
        log_every_n_steps=min(10, optimisation.steps),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
