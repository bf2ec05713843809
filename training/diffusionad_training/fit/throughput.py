"""How fast a training goes, and how much of its time it waits for data."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import lightning
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from diffusionad_training.data.batches import Batch

MAX_WAITING = 0.1  # share of the time; beyond it, data is what holds training up


@dataclass(frozen=True)
class Pace:
    """How a stretch of training went."""

    images_per_second: float  # of all devices together
    waiting: float  # share of the time spent waiting for batches

    def describe(self, workers: int) -> str:
        """Say it in a line, and what to do if data comes too slowly from so many workers."""
        said = (
            f"{self.images_per_second:.1f} images/s, waiting for data "
            f"{100 * self.waiting:.0f} % of the time"
        )
        if self.waiting <= MAX_WAITING:
            return said
        cores = os.cpu_count() or 1
        if workers < cores:
            return f"{said} (raise --workers, now {workers})"
        return f"{said} (all {cores} cores make batches: more cores would train faster)"


class TimedLoader:
    """A loader of batches that counts the seconds its reader waits for them."""

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self.waited = 0.0  # seconds
        self.workers = loader.num_workers
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        started = time.perf_counter()
        for batch in self._loader:
            self.waited += time.perf_counter() - started
            yield batch
            started = time.perf_counter()


class Throughput(Callback):
    """Measures the pace since `restart` was last called, and logs it.

    The first batch does not count: the workers start with it. On a GPU the
    steps run behind the program, so that waiting is overstated rather than missed.
    """

    def __init__(self, loader: TimedLoader) -> None:
        self._loader = loader
        self._images = 0
        self._started: float | None = None
        self._waited = 0.0  # by the loader's count, when this stretch began

    def restart(self) -> None:
        """Begin a new stretch: what was done since the last batch was not training."""
        self._images = 0
        self._started = time.perf_counter()
        self._waited = self._loader.waited

    @property
    def pace(self) -> Pace | None:
        """The pace of this stretch; None before its first batch."""
        if self._started is None or self._images == 0:
            return None
        seconds = time.perf_counter() - self._started
        return Pace(self._images / seconds, (self._loader.waited - self._waited) / seconds)

    def describe(self) -> str:
        """Say the pace, for the line of a checkpoint."""
        pace = self.pace
        return "" if pace is None else f"  {pace.describe(self._loader.workers)}"

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the batch and log the pace."""
        if self._started is None:
            self.restart()
            return
        self._images += len(batch["images"]) * trainer.world_size
        pace = self.pace
        assert pace is not None
        pl_module.log("images_per_second", pace.images_per_second, prog_bar=True)
        pl_module.log("waiting_for_data", pace.waiting)
