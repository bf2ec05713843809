"""Train a detector: from a folder of good images to a run folder."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader, Subset

from diffusionad_client.files import output_errors
from diffusionad_client.output_folders import OutputFolder
from diffusionad_training.config import Config, OptimisationConfig
from diffusionad_training.config.settings import changes, differences
from diffusionad_training.data.batches import GoodImages, TrainingBatches
from diffusionad_training.data.structure import is_texture
from diffusionad_training.errors import CheckpointError
from diffusionad_training.fit import parallel
from diffusionad_training.fit.callbacks import Averaging, Checkpoints, Report
from diffusionad_training.fit.data import TrainingData, read_training_data
from diffusionad_training.fit.lost_processes import lost_processes
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.fit.throughput import Throughput, TimedLoader
from diffusionad_training.fit.validation import ValidationSet
from diffusionad_training.networks.pretrained import EFFICIENTNET_LITE0
from diffusionad_training.run import resume
from diffusionad_training.run.checkpoint import (
    LOGS_FOLDER,
    Origin,
    check_output,
    load_run,
    run_folder,
    start_run,
)
from diffusionad_training.run.initial_weights import InitialWeights, load_initial_weights
from diffusionad_training.run.resume import ResumeState

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}  # as Lightning names them


def _silent(line: str) -> None:
    """Report nothing."""


def train(
    plan: TrainingPlan, *, progress: bool = False, report: Report = _silent
) -> TrainingModule:
    """Train on the good images of the plan's data, and write the run into its output.

    A share of them is held out for the thresholds, by group; groups that the test
    set has images of are left out altogether. Every few steps the run is saved, judged on the
    held-out images (see validation) and described through `report`; `progress` shows a bar.

    With several devices the command that runs this is run again for each further
    one (see parallel), each with workers of its own; a step takes as many more images.

    Raises `DataError`, `ConfigError`, `CheckpointError`, `OutputError` or `TrainingError`.
    """
    parallel.require(plan.devices)
    rank = parallel.rank(plan.devices)
    if rank > 0:
        report = _silent
    if rank == 0:
        check_output(plan.output, overwrite=plan.overwrite, resumed=plan.resumed)
    data = read_training_data(plan, report)
    config = _config_for_surface(plan, data, report)
    if rank > 0:
        start = _begin(plan, config, data, None, report)
        return _carry_out(plan, config, data, start, rank, progress, report)
    with run_folder(plan.output, overwrite=plan.overwrite, resumed=plan.resumed) as folder:
        start = _begin(plan, config, data, folder, report)
        return _carry_out(plan, config, data, start, rank, progress, report)


def _carry_out(
    plan: TrainingPlan,
    config: Config,
    data: TrainingData,
    start: _Start,
    rank: int,
    progress: bool,
    report: Report,
) -> TrainingModule:
    lightning.seed_everything(plan.seed, verbose=False)
    optimisation = config.training.optimisation
    spent = torch.zeros(()).share_memory_()  # type: ignore[no-untyped-call]
    batches = TrainingBatches(
        data.images,
        data.textures,
        config,
        count=optimisation.steps * optimisation.accumulate * plan.devices,
        seed=plan.seed,
        foregrounds=data.foregrounds,
        sources=data.groups,
        progress=spent,
    )
    first = start.steps * optimisation.accumulate * plan.devices + rank
    left = Subset(batches, range(first, len(batches), plan.devices))
    loader = TimedLoader(DataLoader(left, batch_size=None, num_workers=plan.workers))
    throughput = Throughput(loader)
    module = TrainingModule(
        config,
        seed=plan.seed,
        devices=plan.devices,
        time_budget=plan.time_budget,
        spent=spent,
        initial=start.initial,
        normal=GoodImages(data.images, data.groups, config.training.augmentation),
        resumed=start.state,
    )
    checkpoints = Checkpoints(
        plan.output,
        start.origin,
        batches[len(batches) - 1],  # of whole images, in any training
        every=plan.checkpoint_steps,
        report=report,
        validation=ValidationSet(data.held_out, plan.seed, data.held_out_foregrounds),
        throughput=throughput,
        keep_best=plan.keep_best,
        patience=plan.patience,
        resumed=start.state,
    )
    callbacks = [Averaging(), throughput, checkpoints]  # in this order
    with (
        _quiet_lightning(),
        _real_interrupts(checkpoints),
        output_errors(plan.output),
        lost_processes(lambda: checkpoints.saved_step),
    ):
        trainer = _trainer(module, plan, callbacks, start.steps, progress)
        with parallel.processes(trainer, plan.devices):
            trainer.fit(module, loader)
    return module


def _config_for_surface(plan: TrainingPlan, data: TrainingData, report: Report) -> Config:
    """Choose between the plan's configs by what the images show; the run keeps the choice."""
    on_texture = plan.on_texture
    if plan.surface == "part" or on_texture in (None, plan.config):
        return plan.config
    assert on_texture is not None
    if plan.surface == "auto":
        if data.foregrounds is not None or not is_texture(data.images):
            return plan.config
        report(
            "the images share no structure, so they are taken for a texture; "
            "if they show parts, give --surface part"
        )
    adapted = changes(plan.config, on_texture)
    report(f"on a texture: {', '.join(f'{path}={json.dumps(v)}' for path, v in adapted.items())}")
    return on_texture


@dataclass(frozen=True)
class _Start:
    """What a training starts from."""

    origin: Origin
    state: ResumeState | None = None  # of the training that goes on
    initial: InitialWeights | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps done before."""
        return 0 if self.state is None else self.state.step


def _begin(
    plan: TrainingPlan,
    config: Config,
    data: TrainingData,
    folder: OutputFolder | None,
    report: Report,
) -> _Start:
    """Make the run's folder ready, or see what the training there has come to.

    Of several devices' processes the first alone has the folder, and gives the others its
    weights. Raises `CheckpointError` or `OutputError`.
    """
    if plan.resumed:
        state = resume.load(plan.output)
        report(f"going on after step {state.step}")
        return _Start(_same_origin(plan, config, data), state)
    initial, held_out_digest = None, ""
    if plan.begin_from is not None and folder is not None:
        initial = load_initial_weights(plan.begin_from, config)
        report(f"beginning with the weights of {plan.begin_from}")
    if folder is not None:
        held_out_digest = start_run(folder, data.held_out)
    begun_from = None if initial is None else initial.digest
    return _Start(_origin(plan, config, data, held_out_digest, begun_from), initial=initial)


def _origin(
    plan: TrainingPlan,
    config: Config,
    data: TrainingData,
    held_out_digest: str,
    begun_from: str | None,
) -> Origin:
    return Origin(
        data=plan.data.resolve().name,
        data_digest=data.digest,
        training_images=len(data.images),
        left_out=data.left_out,
        held_out=data.held_out_names,
        held_out_digest=held_out_digest,
        textures_digest=data.textures_digest,
        seed=plan.seed,
        time_budget=plan.time_budget,
        version=version("diffusionad-training"),
        devices=plan.devices,
        foreground=data.foreground,
        detail_lost=data.detail_lost,
        begun_from=begun_from,
        pretrained=EFFICIENTNET_LITE0.notice if config.detector.features.is_on else None,
    )


def _same_origin(plan: TrainingPlan, config: Config, data: TrainingData) -> Origin:
    """Check that a run was made from what it is to go on with. Raises `CheckpointError`."""
    output, run = plan.output, load_run(plan.output)
    if run.settings_gone:
        raise CheckpointError(
            f"{output}: was trained with {', '.join(run.settings_gone)}, which this version of "
            "diffusionad does not know; resume with the version that began it, or train anew"
        )
    if run.config != config:
        raise CheckpointError(
            f"{output}: was trained with other settings "
            f"({', '.join(differences(run.config, config))}); resume with the same options, "
            "or train anew into another folder"
        )
    before = run.record.origin
    now = _origin(plan, config, data, before.held_out_digest, before.begun_from)
    for name in ("seed", "held_out", "data_digest", "textures_digest", "foreground", "devices"):
        if getattr(before, name) != getattr(now, name):
            raise CheckpointError(
                f"{output}: its {name} was {getattr(before, name)!r} and is now "
                f"{getattr(now, name)!r}; resume on the same images, with the same options"
            )
    if not np.array_equal(run.held_out_images(), data.held_out):
        raise CheckpointError(f"{output}: other images are held out than before")
    return before


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
    plan: TrainingPlan,
    callbacks: list[Callback],
    steps_before: int,
    progress: bool,
) -> lightning.Trainer:
    optimisation = module.config.training.optimisation
    if progress:
        callbacks = [*callbacks, RichProgressBar(console_kwargs={"stderr": True})]
    # A resumed training writes beside the logs of the one before.
    part = "" if steps_before == 0 else f"from-{steps_before:06d}"
    loggers: list[Logger] = [
        CSVLogger(plan.output, name=LOGS_FOLDER, version=part),
        TensorBoardLogger(plan.output, name=LOGS_FOLDER, version=part, sub_dir="tensorboard"),
    ]
    budget = plan.time_budget
    left = None if budget is None else max(budget - module.seconds, 1.0)
    return lightning.Trainer(
        accelerator="auto",
        devices=plan.devices,
        strategy="auto" if plan.devices == 1 else _strategy(optimisation),
        # Each device normalises by its own batch, which is the preset's: as one does.
        sync_batchnorm=False,
        precision=_PRECISIONS[optimisation.precision],  # type: ignore[arg-type]
        accumulate_grad_batches=optimisation.accumulate,
        max_steps=optimisation.steps - steps_before,
        max_time=None if left is None else timedelta(seconds=left),
        gradient_clip_val=optimisation.gradient_clip or None,
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=min(10, optimisation.steps - steps_before),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _strategy(optimisation: OptimisationConfig) -> str:
    """How several devices train: one that waits for no gradients of what is not trained yet."""
    return "ddp" if optimisation.segmentation_from == 0 else "ddp_find_unused_parameters_true"
