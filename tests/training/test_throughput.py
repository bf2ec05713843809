"""A starved trainer is seen, and what to do about it is said."""

import csv
import os
import time
from pathlib import Path

import pytest

from diffusionad_training.config import Config
from diffusionad_training.data.batches import Batch, TrainingBatches
from diffusionad_training.fit import train
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.fit.throughput import Pace


def test_a_pace_without_waiting_is_said_without_advice() -> None:
    said = Pace(images_per_second=12.34, waiting=0.02).describe(workers=1)
    assert said == "12.3 images/s, waiting for data 2 % of the time"


def test_a_pace_with_much_waiting_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    slow = Pace(images_per_second=1.0, waiting=0.4)
    assert slow.describe(workers=1).endswith("40 % of the time (raise --workers, now 1)")
    assert "all 4 cores make batches" in slow.describe(workers=4)


def test_a_training_that_waits_for_its_data_says_so(
    tiny_data: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TrainingBatches.__getitem__

    def slow(self: TrainingBatches, index: int) -> Batch:
        time.sleep(0.5)
        return made(self, index)

    monkeypatch.setattr(TrainingBatches, "__getitem__", slow)
    lines: list[str] = []
    train.train(
        TrainingPlan(*(tiny_data, tmp_path / "run", tiny_config), workers=0, checkpoint_steps=3),
        report=lines.append,
    )
    steps = [line for line in lines if line.startswith("step ")]
    assert len(steps) == 2
    assert all("images/s, waiting for data " in line for line in steps)
    assert all("raise --workers, now 0" in line for line in steps)
    with (tmp_path / "run" / "logs" / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert 0.1 < float(row["waiting_for_data"]) <= 1
    assert 0 < float(row["images_per_second"]) <= 8  # batches of 4, half a second each
