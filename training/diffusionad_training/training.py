"""Train a detector: from a folder of good images to a run folder."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from diffusionad_client.images import IMAGE_SUFFIXES
from diffusionad_training import pictures
from diffusionad_training.checkpoint import (
    LOGS_FOLDER,
    SAMPLES_FOLDER,
    RunRecord,
    save_run,
    start_run,
)
from diffusionad_training.config import Config
from diffusionad_training.data import foregrounds, groups, layout
from diffusionad_training.data.batches import Batch, TrainingBatches, to_device
from diffusionad_training.data.digest import digest
from diffusionad_training.data.images import load_all
from diffusionad_training.data.split import hold_out
from diffusionad_training.errors import DataError
from diffusionad_training.training_module import TrainingModule

MIN_TRAINING_IMAGES = 2  # one to train on and one to hold out
_IGNORED_NAMED = 5

Report = Callable[[str], None]


def train(
    data: Path,
    output: Path,
    config: Config,
    *,
    textures: Path | None = None,
    foreground: Path | foregrounds.Foreground = "none",
    held_out_share: float = 0.15,
    seed: int = 0,
    time_budget: float | None = None,
    workers: int = 1,
    checkpoint_steps: int = 250,
    progress: bool = False,
    report: Report = lambda line: None,
) -> TrainingModule:
    """Train on the good images under `data` and write the run into `output`.

    `textures` is a folder of pictures for synthetic anomalies, `foreground` one
    of masks of the product, which they are put on (see foregrounds). A share of the
    good images is held out for the thresholds, by group; groups that the test
    set has images of are left out altogether. `time_budget`, in
    seconds, ends the run early, the learning rate decaying towards that end.
    Every `checkpoint_steps` the run is saved and described through `report`.

    Raises `DataError`, `ConfigError` or `TrainingError`.
    """
    found = layout.read(data)
    paths = found.require_train()
    _report_ignored(found, report)
    grouping = groups.grouping(found)
    usable = grouping.trainable()
    if len(usable) < MIN_TRAINING_IMAGES:
        raise DataError(
            f"{data}: {len(usable)} good images to train on; training needs {MIN_TRAINING_IMAGES}"
        )
    chosen = hold_out([grouping.groups[index] for index in usable], held_out_share, seed)
    if not chosen:
        raise DataError(
            f"{data}: all good images are one group in {groups.GROUPS_FILE}, so that none can be "
            "held out for the thresholds"
        )
    held = [paths[usable[index]] for index in chosen]
    kept = [paths[index] for index in usable if paths[index] not in set(held)]
    report(f"{len(kept)} good images to train on, {len(held)} held out for the thresholds")
    left_out = len(paths) - len(usable)
    if left_out:
        report(f"{left_out} left out: {groups.GROUPS_FILE} groups them with test images")
    texture_images, textures_digest = None, None
    if textures is not None:
        texture_paths = find_textures(textures)
        textures_digest = digest(textures, texture_paths)
        texture_images = load_all(texture_paths, config.size)
    training_images = load_all(kept, config.size)
    where, masks = _foregrounds(foreground, found, kept, training_images, report)
    record = RunRecord(
        data=data.resolve().name,
        data_digest=digest(data, kept),
        training_images=len(kept),
        left_out=left_out,
        held_out=tuple(found.name(path) for path in held),
        held_out_digest=start_run(output, load_all(held, config.size)),
        textures_digest=textures_digest,
        seed=seed,
        time_budget=time_budget,
        steps=0,
        version=version("diffusionad-training"),
        foreground=where,
    )
    lightning.seed_everything(seed, verbose=False)
    batches = TrainingBatches(
        training_images,
        texture_images,
        config,
        count=config.optimisation.steps,
        seed=seed,
        foregrounds=masks,
    )
    module = TrainingModule(config, seed=seed, time_budget=time_budget)
    checkpoints = Checkpoints(output, record, batches[0], every=checkpoint_steps, report=report)
    with _quiet_lightning(), _real_interrupts(checkpoints):
        _trainer(module, output, checkpoints, time_budget, progress).fit(
            module, DataLoader(batches, batch_size=None, num_workers=workers)
        )
    return module


def _foregrounds(
    wanted: Path | foregrounds.Foreground,
    data: layout.DataSet,
    paths: Sequence[Path],
    images: NDArray[np.uint8],
    report: Report,
) -> tuple[str, foregrounds.Masks | None]:
    """Get the foreground masks of the images, and where they come from."""
    if wanted == "none":
        return "none", None
    if isinstance(wanted, Path):
        return "folder", foregrounds.load(wanted, [data.name(p) for p in paths], images.shape[1])
    masks = foregrounds.estimate(images)
    if masks is None:
        report("no product on a plain ground: synthetic anomalies may lie anywhere")
        return "none", None
    report(f"the product covers {masks.mean():.0%} of the images: synthetic anomalies lie on it")
    return "auto", masks


def _report_ignored(data: layout.DataSet, report: Report) -> None:
    if data.ignored:
        named = ", ".join(data.name(path) for path in data.ignored[:_IGNORED_NAMED])
        more = len(data.ignored) - _IGNORED_NAMED
        rest = f" and {more} more" if more > 0 else ""
        report(f"no images by their suffix, left out: {named}{rest}")


def find_textures(folder: Path) -> list[Path]:
    """List the images of a folder of textures, at every depth."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of textures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: no images to take textures from")
    return paths


class Averaging(Callback):
    """Average the weights after each optimiser step, before anything looks at them."""

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Update the average."""
        assert isinstance(pl_module, TrainingModule)
        pl_module.update_average()


class Checkpoints(Callback):
    """Save the run, draw a sample sheet and report, every so many steps and at the end."""

    def __init__(
        self, output: Path, record: RunRecord, samples: Batch, *, every: int, report: Report
    ) -> None:
        self.saved_step: int | None = None  # the last that is on disk
        self._output = output
        self._record = record
        self._samples = samples
        self._every = every
        self.report = report
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
        """Save and report if it is time to."""
        if trainer.global_step % self._every:
            return
        assert isinstance(pl_module, TrainingModule)
        self._save(pl_module)
        losses = trainer.callback_metrics
        elapsed = time.monotonic() - self._started
        images = trainer.global_step * len(batch["images"])
        self.report(
            f"step {trainer.global_step}  noise loss {losses['noise_loss']:.4f}  "
            f"mask loss {losses['mask_loss']:.4f}  {images / elapsed:.1f} images/s  "
            f"{elapsed / 60:.1f} min"
        )

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save the last step."""
        self._save_unless_saved(pl_module)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Save what an interrupted run has come to; what failed otherwise is not to be trusted."""
        if isinstance(exception, KeyboardInterrupt) and pl_module.global_step > 0:
            self._save_unless_saved(pl_module)

    def _save_unless_saved(self, module: lightning.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        if self.saved_step != module.global_step:
            self._save(module)

    def _save(self, module: TrainingModule) -> None:
        """Write the run as it stands now, with a picture of it at work."""
        model, step = module.trained_model(), module.global_step
        save_run(self._output, module.config, model.state_dict(), replace(self._record, steps=step))
        was_training = model.training
        model.eval()
        sheet = pictures.sample_sheet(model, to_device(self._samples, module.device))
        model.train(was_training)
        pictures.save_sheet(sheet, self._output / SAMPLES_FOLDER / f"step-{step:06d}.png")
        self.saved_step = step


@contextmanager
def _real_interrupts(checkpoints: Checkpoints) -> Iterator[None]:
    """Make a Ctrl-C a KeyboardInterrupt again, which Lightning turns into an exit code, unsaid."""
    try:
        yield
    except SystemExit as exc:
        if not isinstance(exc.__context__, KeyboardInterrupt):
            raise
        saved = checkpoints.saved_step
        checkpoints.report(
            "stopped before anything was saved"
            if saved is None
            else f"stopped; the run is saved as of step {saved}"
        )
        raise KeyboardInterrupt from exc


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
    checkpoints: Checkpoints,
    time_budget: float | None,
    progress: bool,
) -> lightning.Trainer:
    optimisation = module.config.optimisation
    callbacks: list[Callback] = [Averaging(), checkpoints]  # in this order
    if progress:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=optimisation.steps,
        max_time=None if time_budget is None else timedelta(seconds=time_budget),
        gradient_clip_val=optimisation.gradient_clip or None,
        callbacks=callbacks,
        logger=CSVLogger(output, name=LOGS_FOLDER, version=""),
        log_every_n_steps=min(10, optimisation.steps),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
