"""What is to be trained, from what and how long: all that decides what a training comes to."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from diffusionad_training.config import Config
from diffusionad_training.data.foregrounds import Foreground
from diffusionad_training.data.structure import Surface


@dataclass(frozen=True)
class TrainingPlan:
    """One training. `DataError`s and the like come when it is carried out."""

    data: Path  # folder whose good images are trained on
    output: Path  # folder of the run
    config: Config
    _: KW_ONLY
    on_texture: Config | None = None  # what to take where images show a texture; None: `config`
    surface: Surface = "auto"  # whether they do, see data/structure.py
    textures: Path | None = None  # folder of pictures for synthetic anomalies
    foreground: Path | Foreground = "none"  # where anomalies go, see data/foregrounds.py
    held_out_share: float = 0.15  # of the good images, by group, kept for the thresholds
    seed: int = 0
    # Seconds after which the training ends, the learning rate decaying towards that.
    time_budget: float | None = None
    workers: int = 1  # processes that make batches, for each device
    devices: int = 1  # that share each step, see parallel.py
    checkpoint_steps: int = 250
    keep_best: bool = False  # the weights that did best on the held-out images, not the last
    patience: int | None = None  # checkpoints without better weights that end the training
    begin_from: Path | None = None  # a run whose weights this one begins with
    # Go on with the training that `output` holds, which must have been the same; what that
    # began from is not read again.
    resumed: bool = False
    overwrite: bool = False  # a run that `output` holds
