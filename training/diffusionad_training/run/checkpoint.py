"""A run on disk: weights as safetensors, everything else as JSON; no pickle anywhere.

RUN/
  config.json           Config
  weights.safetensors   the weights (averaged, if the config says so) and the fixed noise
  run.json              RunRecord: what was trained on and what was held out
  held_out.npz          the held-out good images at the model's size, so that
                        `export` needs nothing but the run
  resume.safetensors    see resume.py
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from diffusionad_client.artifacts.bundle import file_digest
from diffusionad_training.config import Config
from diffusionad_training.config.migration import settings_gone
from diffusionad_training.errors import CheckpointError, ConfigError
from diffusionad_training.method.model import DiffusionAD

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
RECORD_FILE = "run.json"
HELD_OUT_FILE = "held_out.npz"
SAMPLES_FOLDER = "samples"
LOGS_FOLDER = "logs"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run is made from, known before its first step. Paths are relative to the data."""

    data: str  # the data folder's own name, never its path
    data_digest: str  # of the images trained on, see layout.digest
    training_images: int
    left_out: int  # good images whose group is in the test set, neither trained on nor held out
    held_out: tuple[str, ...]  # good images never trained on: they set the thresholds
    held_out_digest: str  # SHA-256 of held_out.npz
    textures_digest: str | None  # of the textures folder, None without one
    seed: int
    time_budget: float | None  # seconds; with one, the same seed gives other weights
    version: str  # of diffusionad-training
    devices: int = 1  # that shared each step
    foreground: str = "none"  # where anomalies were put: none (anywhere), auto or folder
    begun_from: str | None = None  # digest of the weights begun with, None: random ones


@dataclass(frozen=True, kw_only=True)
class RunRecord(Origin):
    """What a run was made from, and what it came to."""

    steps: int  # optimiser steps done
    validation_score: float | None = None  # see validation.py

    @property
    def origin(self) -> Origin:
        """What it was made from."""
        return Origin(**{one.name: getattr(self, one.name) for one in fields(Origin)})


def record_of(origin: Origin, *, steps: int, validation_score: float) -> RunRecord:
    """Make the record of a checkpoint."""
    return RunRecord(**vars(origin), steps=steps, validation_score=validation_score)


@dataclass(frozen=True)
class Run:
    """A trained detector as read from its folder, in evaluation mode."""

    folder: Path
    config: Config
    model: DiffusionAD
    record: RunRecord
    # Settings that it was trained with and that are no more, see config/migration.py.
    settings_gone: tuple[str, ...] = ()

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the weights' file: tells detectors apart."""
        return file_digest(self.folder / WEIGHTS_FILE)

    def held_out_images(self) -> NDArray[np.uint8]:
        """The held-out good images, (N, S, S, 3). Raises `CheckpointError`."""
        path = self.folder / HELD_OUT_FILE
        if not path.is_file() or file_digest(path) != self.record.held_out_digest:
            raise CheckpointError(
                f"{path}: not the held-out images of this run; thresholds set on others would be "
                "wrong. Restore the file or train again"
            )
        try:
            with np.load(path, allow_pickle=False) as arrays:
                images: NDArray[np.uint8] = arrays["images"]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as exc:
            raise CheckpointError(f"{path}: the held-out images cannot be read: {exc}") from exc
        return images


def save_run(folder: Path, config: Config, weights: dict[str, Tensor], record: RunRecord) -> None:
    """Write a run, or a later state of it; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_file(folder / CONFIG_FILE, config.to_json().encode())
    write_file(folder / WEIGHTS_FILE, safetensors.torch.save(tensors))
    write_file(folder / RECORD_FILE, json.dumps(dataclasses.asdict(record), indent=2).encode())


def start_run(folder: Path, held_out: NDArray[np.uint8]) -> str:
    """Make room for a new run, and keep the held-out good images (N, S, S, 3) with it.

    An earlier run there is removed first: half of each would be worse than
    either. Returns the digest of the held-out images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RECORD_FILE, CONFIG_FILE, WEIGHTS_FILE, HELD_OUT_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in (SAMPLES_FOLDER, LOGS_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=held_out)
    write_file(folder / HELD_OUT_FILE, buffer.getvalue())
    return file_digest(folder / HELD_OUT_FILE)


def load_run(folder: Path) -> Run:
    """Read a run. Raises `CheckpointError` if a file is missing or does not fit."""
    for name in (CONFIG_FILE, WEIGHTS_FILE, RECORD_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: not a finished run: {name} is missing; `diffusionad train` writes one"
            )
    try:
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
        config = Config.from_json(text)
        document = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, ConfigError, SafetensorError) as exc:
        raise CheckpointError(f"{folder}: the run cannot be read: {exc}") from exc
    model = DiffusionAD(config.detector)
    try:
        record = RunRecord(**{**document, "held_out": tuple(document["held_out"])})
        model.load_state_dict(weights)
    except (TypeError, KeyError, RuntimeError) as exc:
        raise CheckpointError(
            f"{folder}: the run does not fit this version of diffusionad: {exc}"
        ) from exc
    return Run(folder, config, model.eval(), record, tuple(settings_gone(json.loads(text))))


def write_file(path: Path, content: bytes) -> None:
    """Write a file through to the disk, so that it appears whole or not at all."""
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
