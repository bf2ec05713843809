"""Train a detector: from a folder of good images to a run folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset

from diffusionad_training.config import Config, OptimisationConfig
from diffusionad_training.config.presets import on_texture
from diffusionad_training.config.settings import differences, values
from diffusionad_training.data.batches import TrainingBatches
from diffusionad_training.data.foregrounds import Foreground
from diffusionad_training.data.structure import Surface, is_texture
from diffusionad_training.errors import CheckpointError
from diffusionad_training.fit import parallel
from diffusionad_training.fit.callbacks import Averaging, Checkpoints, Report
from diffusionad_training.fit.data import TrainingData, read_training_data
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.throughput import Throughput, TimedLoader
from diffusionad_training.fit.validation import ValidationSet
from diffusionad_training.run import resume
from diffusionad_training.run.checkpoint import LOGS_FOLDER, RunRecord, load_run, start_run
from diffusionad_training.run.initial_weights import load_initial_weights

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}  # as Lightning names them


def train(
    data: Path,
    output: Path,
    config: Config,
    *,
    textures: Path | None = None,
    foreground: Path | Foreground = "none",
    surface: Surface = "auto",
    held_out_share: float = 0.15,
    seed: int = 0,
    time_budget: float | None = None,
    workers: int = 1,
    devices: int = 1,
    checkpoint_steps: int = 250,
    keep_best: bool = False,
    patience: int | None = None,
    begin_from: Path | None = None,
    resumed: bool = False,
    progress: bool = False,
    report: Report = lambda line: None,
) -> TrainingModule:
    """Train on the good images under `data` and write the run into `output`.

    `textures` is a folder of pictures for synthetic anomalies, `foreground` one
    of masks of the product, which they are put on (see foregrounds). A share of the
    good images is held out for the thresholds, by group; groups that the test
    set has images of are left out altogether. Where the `surface` is a texture (see
    structure), the preset is adapted to that (see presets). `time_budget`, in
    seconds, ends the run early, the learning rate decaying towards that end.

    Every `checkpoint_steps` the run is saved, judged on the held-out images
    (see validation) and described through `report`. `keep_best` keeps the
    weights that did best there instead of the last, and `patience` ends the
    training after so many checkpoints without better ones.

    `begin_from` is an earlier run of the same networks, whose weights this one begins
    with (see initial_weights). `resumed` goes on with the training that `output` holds, which
    must have been the same; what that began from is not read again.

    With several `devices` the command that runs this is run again for each further
    one (see parallel), `workers` processes making batches for each; a step takes as
    many more images.

    Raises `DataError`, `ConfigError`, `CheckpointError` or `TrainingError`.
    """
    parallel.require(devices)
    rank = parallel.rank(devices)
    if rank > 0:
        report = _silent
    prepared = read_training_data(data, config, textures, foreground, held_out_share, seed, report)
    config = _suited(config, prepared, surface, report)
    record = replace(prepared.record, time_budget=time_budget, devices=devices)
    state, initial = None, None
    if begin_from is not None and not resumed and rank == 0:  # whose weights all devices take
        initial = load_initial_weights(begin_from, config)
        record = replace(record, begun_from=initial.digest)
        report(f"beginning with the weights of {begin_from}")
    if resumed:
        state = resume.load(output)
        record = _same_run(output, config, record, prepared.held_out)
        report(f"going on after step {state.step}")
    elif rank == 0:
        record = replace(record, held_out_digest=start_run(output, prepared.held_out))
    lightning.seed_everything(seed, verbose=False)
    optimisation = config.optimisation
    spent = torch.zeros(()).share_memory_()  # type: ignore[no-untyped-call]
    batches = TrainingBatches(
        prepared.images,
        prepared.textures,
        config,
        count=optimisation.steps * optimisation.accumulate * devices,
        seed=seed,
        foregrounds=prepared.foregrounds,
        progress=spent,
    )
    done = 0 if state is None else state.step
    first = done * optimisation.accumulate * devices + rank
    left = Subset(batches, range(first, len(batches), devices))
    loader = TimedLoader(DataLoader(left, batch_size=None, num_workers=workers))
    throughput = Throughput(loader)
    module = TrainingModule(
        config,
        seed=seed,
        devices=devices,
        time_budget=time_budget,
        spent=spent,
        initial=initial,
        resumed=state,
    )
    checkpoints = Checkpoints(
        output,
        record,
        batches[len(batches) - 1],  # of whole images, in any training
        every=checkpoint_steps,
        report=report,
        validation=ValidationSet(prepared.held_out, seed, prepared.held_out_foregrounds),
        throughput=throughput,
        keep_best=keep_best,
        patience=patience,
        resumed=state,
    )
    callbacks = [Averaging(), throughput, checkpoints]  # in this order
    with _quiet_lightning(), _real_interrupts(checkpoints):
        trainer = _trainer(module, output, callbacks, devices, done, time_budget, progress)
        with parallel.processes(trainer, devices):
            trainer.fit(module, loader)
    return module


def _suited(config: Config, prepared: TrainingData, surface: Surface, report: Report) -> Config:
    """Adapt the preset to a texture, if that is what the images show; the run keeps the result."""
    adapted = on_texture(config)
    if surface == "part" or adapted == config:
        return config
    if surface == "auto":
        if prepared.foregrounds is not None or not is_texture(prepared.images):
            return config
        report(
            "the images share no structure, so they are taken for a texture; "
            "if they show parts, give --surface part"
        )
    new = values(adapted)
    changes = [f"{path}={new[path]}" for path in differences(config, adapted)]
    report(f"on a texture: {', '.join(changes)}")
    return adapted


def _same_run(
    output: Path, config: Config, record: RunRecord, held_out: NDArray[np.uint8]
) -> RunRecord:
    """Check that a run was made from what it is to go on with. Raises `CheckpointError`."""
    run = load_run(output)
    if run.model.config != config:
        raise CheckpointError(
            f"{output}: was trained with other settings "
            f"({', '.join(differences(run.model.config, config))}); resume with the same options, "
            "or train anew into another folder"
        )
    before, now = run.record, record
    for name in ("seed", "held_out", "data_digest", "textures_digest", "foreground", "devices"):
        if getattr(before, name) != getattr(now, name):
            raise CheckpointError(
                f"{output}: its {name} was {getattr(before, name)!r} and is now "
                f"{getattr(now, name)!r}; resume on the same images, with the same options"
            )
    if not np.array_equal(run.held_out_images(), held_out):
        raise CheckpointError(f"{output}: other images are held out than before")
    return before


def _silent(line: str) -> None:
    """Report nothing."""


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
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _trainer(
    module: TrainingModule,
    output: Path,
    callbacks: list[Callback],
    devices: int,
    done: int,
    time_budget: float | None,
    progress: bool,
) -> lightning.Trainer:
    optimisation = module.config.optimisation
    if progress:
        callbacks = [*callbacks, RichProgressBar(console_kwargs={"stderr": True})]
    # A resumed training writes beside the logs of the one before.
    part = "" if done == 0 else f"from-{done:06d}"
    loggers: list[Logger] = [
        CSVLogger(output, name=LOGS_FOLDER, version=part),
        TensorBoardLogger(output, name=LOGS_FOLDER, version=part, sub_dir="tensorboard"),
    ]
    left = None if time_budget is None else max(time_budget - module.seconds, 1.0)
    return lightning.Trainer(
        accelerator="auto",
        devices=devices,
        strategy="auto" if devices == 1 else _strategy(optimisation),
        # Each device normalises by its own batch, which is the preset's: as one does.
        sync_batchnorm=False,
        precision=_PRECISIONS[optimisation.precision],  # type: ignore[arg-type]
        accumulate_grad_batches=optimisation.accumulate,
        max_steps=optimisation.steps - done,
        max_time=None if left is None else timedelta(seconds=left),
        gradient_clip_val=optimisation.gradient_clip or None,
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=min(10, optimisation.steps - done),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _strategy(optimisation: OptimisationConfig) -> str:
    """How several devices train: one that waits for no gradients of what is not trained yet."""
    return "ddp" if optimisation.segmentation_from == 0 else "ddp_find_unused_parameters_true"
