"""A run on disk: weights as safetensors, everything else as JSON; no pickle anywhere.

RUN/
  config.json           Config
  weights.safetensors   the weights (averaged, if the config says so) and the fixed noise
  run.json              RunRecord: what was trained on and what was held out
  held_out.npz          the held-out good images at the model's size, so that
                        `export` needs nothing but the run
  resume.safetensors    see resume.py
  samples/, logs/       pictures of the model at work, and its losses
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from diffusionad_client import output_folders
from diffusionad_client.artifacts.bundle import file_digest
from diffusionad_client.files import PART, output_errors
from diffusionad_client.output_folders import Kind, OutputFolder
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
RESUME_FILE = "resume.safetensors"

RUN = Kind(
    name="train",
    content="an earlier run",
    entries=(
        *(HELD_OUT_FILE, CONFIG_FILE, WEIGHTS_FILE, RECORD_FILE, RESUME_FILE),
        *(SAMPLES_FOLDER, LOGS_FOLDER),
    ),
    proofs=(HELD_OUT_FILE,),
    inside={
        SAMPLES_FOLDER: ("*/step-[0-9]*.png", "*/step-[0-9]*.png.part"),
        LOGS_FOLDER: ("*/metrics.csv", "*/events.out.tfevents.*", "*/hparams.yaml"),
    },
)
_RESUMED = dataclasses.replace(RUN, inside={})  # nothing is replaced: whatever lies there may stay


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
    detail_lost: float | None = None  # by the size, see data/resolution.py; None: not measured
    begun_from: str | None = None  # digest of the weights begun with, None: random ones
    pretrained: str | None = None  # of others' weights in it: whose, their licence and digest


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


def check_output(folder: Path, *, overwrite: bool, resumed: bool) -> None:
    """Refuse a folder that `run_folder` would refuse, before anything is made in it."""
    output_folders.check_claim(folder, _RESUMED if resumed else RUN, overwrite=True)
    _keep_run(folder, overwrite, resumed)


@contextmanager
def run_folder(folder: Path, *, overwrite: bool, resumed: bool) -> Iterator[OutputFolder]:
    """Hold a folder for a training: no other may write there, and nothing but runs is replaced.

    What a training that came to no checkpoint has left is no run. Raises `OutputError`, or
    `ConfigError` for a run that is to stay.
    """
    kind = _RESUMED if resumed else RUN
    with output_folders.claimed(folder, kind, overwrite=True, keep_parts=resumed) as held:
        _keep_run(folder, overwrite, resumed)
        yield held


def start_run(folder: OutputFolder, held_out: NDArray[np.uint8]) -> str:
    """Begin a new run with its held-out good images (N, S, S, 3); an earlier one there goes.

    All of it at one stroke, once the disk has taken the images: half of each run would be
    worse than either. Returns the digest of the images.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=held_out)
    with output_errors(folder.path):
        folder.part(HELD_OUT_FILE).write_bytes(buffer.getvalue())
        folder.publish()
    return file_digest(folder.path / HELD_OUT_FILE)


def run_files(config: Config, weights: dict[str, Tensor], record: RunRecord) -> dict[str, bytes]:
    """Render a run, or a later state of it, as the contents of its files by their names."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return {
        CONFIG_FILE: config.to_json().encode(),
        WEIGHTS_FILE: safetensors.torch.save(tensors),
        RECORD_FILE: json.dumps(dataclasses.asdict(record), indent=2).encode(),
    }


def write_checkpoint(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files through to the disk, and give them their names when it has taken them all.

    On a full disk the checkpoint before stays whole. Raises `OutputError`.
    """
    parts = {folder / (name + PART): folder / name for name in files}
    try:
        for part, content in zip(parts, files.values(), strict=True):
            with output_errors(part), part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for part, path in parts.items():
            with output_errors(path):
                part.replace(path)
    except BaseException:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)  # on a full disk, in the way of what can be kept
        raise


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


def _keep_run(folder: Path, overwrite: bool, resumed: bool) -> None:
    if (folder / CONFIG_FILE).exists() and not (overwrite or resumed):
        raise ConfigError(
            f"{folder}: holds a run already; name another folder, --resume or --overwrite"
        )
