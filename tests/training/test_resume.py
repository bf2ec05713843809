"""A training that was stopped goes on as if it never had been."""

import csv
import dataclasses
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.data.batches import Batch
from diffusionad_training.errors import CheckpointError
from diffusionad_training.fit import train as fit
from diffusionad_training.fit.callbacks import Checkpoints
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.fit.validation import Validation, ValidationSet
from diffusionad_training.run import resume
from diffusionad_training.run.checkpoint import load_run


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    """Two batches a step, and dropout: more that must be drawn again as it was.

    The segmentation network, trained from the fifth of six steps on, has no moments before.
    """
    return changed(
        tiny_config,
        {
            "optimisation.steps": 6,
            "optimisation.accumulate": 2,
            "optimisation.segmentation_from": 0.6,
            "noise_network.dropout": 0.2,
        },
    )


def run_training(data: Path, output: Path, config: Config, **options: object) -> TrainingModule:
    return fit.train(TrainingPlan(data, output, config, workers=0, checkpoint_steps=2, **options))


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_data: Path, config: Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    run_training(tiny_data, output, config)
    return output


@pytest.fixture
def killed(tiny_data: Path, config: Config, tmp_path: Path) -> Path:
    """A run whose process was killed in step 5, after the checkpoint of step 4."""
    output = tmp_path / "run"
    child = os.fork()
    if child == 0:
        step = TrainingModule.training_step

        def deadly(self: TrainingModule, batch: Batch, index: int) -> torch.Tensor:
            if index == 9:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, batch, index)

        TrainingModule.training_step = deadly  # type: ignore[method-assign]
        try:
            run_training(tiny_data, output, config)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return output


def losses(run: Path) -> dict[float, tuple[str, str]]:
    found = {}
    for table in sorted(run.rglob("metrics.csv")):
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("noise_loss"):
                    found[float(row["step"])] = (row["noise_loss"], row["mask_loss"])
    return found


def test_a_killed_training_goes_on_to_the_very_same_weights(
    tiny_data: Path, config: Config, uninterrupted: Path, killed: Path
) -> None:
    assert resume.load(killed).step == 4
    module = run_training(tiny_data, killed, config, resumed=True)
    assert module.step == 6
    assert load_run(killed).weights_digest == load_run(uninterrupted).weights_digest
    assert load_run(killed).record == load_run(uninterrupted).record
    ours, theirs = (load_file(run / resume.RESUME_FILE) for run in (killed, uninterrupted))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_resumed_training_logs_the_losses_of_an_uninterrupted_one(
    tiny_data: Path, config: Config, uninterrupted: Path, killed: Path
) -> None:
    run_training(tiny_data, killed, config, resumed=True)
    whole, after = losses(uninterrupted), losses(killed / "logs" / "from-000004")
    assert after
    assert {step: whole[step] for step in after} == after


def test_other_settings_are_not_resumed_with(
    tiny_data: Path, config: Config, uninterrupted: Path
) -> None:
    other = changed(config, {"optimisation.steps": 7})
    with pytest.raises(CheckpointError, match="trained with other settings"):
        run_training(tiny_data, uninterrupted, other, resumed=True)
    with pytest.raises(CheckpointError, match="its seed was 0 and is now 1"):
        run_training(tiny_data, uninterrupted, config, resumed=True, seed=1)


def test_nothing_to_resume_is_said(tiny_data: Path, config: Config, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no unfinished training to go on with"):
        run_training(tiny_data, tmp_path / "run", config, resumed=True)


def test_a_training_by_time_goes_on_with_the_rate_that_it_had_come_to(
    config: Config, uninterrupted: Path
) -> None:
    state = dataclasses.replace(resume.load(uninterrupted), step=3, seconds=90.0)
    spent = torch.zeros(())
    module = TrainingModule(config, seed=0, time_budget=100, spent=spent, resumed=state)
    optimiser = module.configure_optimizers()["optimizer"]
    decayed = 0.5 * (1 + math.cos(0.9 * math.pi))
    rate = config.training.optimisation.noise_learning_rate * decayed
    assert optimiser.param_groups[0]["lr"] == pytest.approx(rate, rel=0.1)
    assert spent.item() == pytest.approx(0.9, abs=0.02)  # so that no windows are made again


def test_a_damaged_state_is_named(tiny_data: Path, config: Config, killed: Path) -> None:
    (killed / resume.RESUME_FILE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        run_training(tiny_data, killed, config, resumed=True)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make the validation say what stands in the list, from the front."""
    said: list[float] = []
    monkeypatch.setattr(ValidationSet, "judge", lambda self, model: Validation(said.pop(0), 0.0))
    return said


def test_the_best_weights_are_kept_if_asked_for(
    tiny_data: Path, config: Config, tmp_path: Path, judged: list[float]
) -> None:
    judged[:] = [0.2, 0.8, 0.6]
    run_training(tiny_data, tmp_path / "best", config, keep_best=True)
    assert load_run(tmp_path / "best").record.steps == 4
    assert load_run(tmp_path / "best").record.validation_score == 0.4
    judged[:] = [0.2, 0.8, 0.6]
    run_training(tiny_data, tmp_path / "last", config)
    assert load_run(tmp_path / "last").record.steps == 6


def test_training_stops_when_nothing_better_comes(
    tiny_data: Path, config: Config, tmp_path: Path, judged: list[float]
) -> None:
    judged[:] = [0.8, 0.6, 0.9]
    module = run_training(tiny_data, tmp_path / "run", config, keep_best=True, patience=1)
    assert module.step == 4
    assert load_run(tmp_path / "run").record.steps == 2


def test_the_validation_set_is_the_same_every_time(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    first, again = (
        ValidationSet(run.held_out_images(), 0, None).judge(run.model) for _ in range(2)
    )
    assert first == again
    assert 0 <= first.score <= 1


def test_checkpoints_come_once_a_step_however_many_batches_make_one(
    tiny_data: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    original = Checkpoints._save

    def record(self: Checkpoints, module: TrainingModule) -> str:
        saved.append(module.step)
        return original(self, module)

    monkeypatch.setattr(Checkpoints, "_save", record)
    run_training(tiny_data, tmp_path / "run", config)
    assert saved == [2, 4, 6]


def test_two_batches_a_step_are_one_batch_of_twice_the_size_in_learning(
    tiny_data: Path, config: Config, tmp_path: Path
) -> None:
    bf16 = changed(
        config,
        {
            "optimisation.precision": "bf16",
            "optimisation.steps": 2,
            "optimisation.segmentation_from": 0.0,
            "noise_network.recompute": True,
        },
    )
    module = run_training(tiny_data, tmp_path / "run", bf16)
    assert module.step == 2
    weights = load_run(tmp_path / "run").model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert {t.dtype for t in module.parameters()} == {torch.float32}
