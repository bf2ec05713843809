"""Two processes train as one: on the CPU, started by Lightning from the real command."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.errors import CheckpointError, ConfigError
from diffusionad_training.fit import parallel, train
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.run import resume
from diffusionad_training.run.checkpoint import load_run

# `diffusionad` with the tiny preset, and with each process noting what it saw and came to.
COMMAND = """
import hashlib, json, os, shutil, sys
from pathlib import Path
from safetensors.torch import save_file
from diffusionad_client.cli import main
from diffusionad_training.fit import callbacks
from diffusionad_training.config import presets
from diffusionad_training.config import Config
from diffusionad_training.fit.module import TrainingModule

notes = Path(os.environ["NOTES"])
presets.PRESETS["tiny"] = Config.from_json((notes / "config.json").read_text())
seen, step, save = [], TrainingModule.training_step, callbacks.Checkpoints._save

def training_step(self, batch, index):
    seen.append(hashlib.sha256(batch["images"].numpy().tobytes()).hexdigest())
    return step(self, batch, index)

def on_before_optimizer_step(self, optimizer):
    if self.step == 0 and self.global_rank == 0:
        parameters = self.model.named_parameters()
        gradients = {name: p.grad for name, p in parameters if p.grad is not None}
        save_file(gradients, notes / "gradients.safetensors")

def on_train_end(self):
    weights = {name: p.detach() for name, p in self.named_parameters()}
    save_file(weights, notes / f"weights-{self.global_rank}.safetensors")
    (notes / f"seen-{self.global_rank}.json").write_text(json.dumps(seen))

def saved(self, module):
    said = save(self, module)
    if module.step == 2:
        shutil.copytree(self._output, notes / "as-of-step-2", dirs_exist_ok=True)
    return said

TrainingModule.training_step = training_step
TrainingModule.on_before_optimizer_step = on_before_optimizer_step
TrainingModule.on_train_end = on_train_end
callbacks.Checkpoints._save = saved
main()
"""


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    return changed(tiny_config, {"optimisation.steps": 4})


def train_on_two(data: Path, output: Path, notes: Path, config: Config, *options: str) -> str:
    """Run the command with two processes; gives what it printed."""
    notes.mkdir(exist_ok=True)
    (notes / "config.json").write_text(config.to_json())
    (notes / "command.py").write_text(COMMAND)
    done = subprocess.run(
        [
            *(sys.executable, notes / "command.py", "train", data, "--output", output),
            *("--preset", "tiny", "--foreground", "none", "--workers", "0", "--devices", "2"),
            *("--checkpoint-steps", "2", "--keep-best", "--patience", "5", *options),
        ],
        env=os.environ | {"NOTES": str(notes), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@dataclasses.dataclass(frozen=True)
class Trained:
    """A training on two devices: its run, what each process noted, what was printed."""

    run: Path
    notes: Path
    printed: str


@pytest.fixture(scope="module")
def trained(tiny_data: Path, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("two")
    run, notes = folder / "run", folder / "notes"
    return Trained(run, notes, train_on_two(tiny_data, run, notes, config))


@pytest.mark.slow
def test_both_processes_come_to_the_same_weights(trained: Trained) -> None:
    first, second = (load_file(trained.notes / f"weights-{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_no_batch_is_seen_by_both(trained: Trained) -> None:
    first, second = (
        json.loads((trained.notes / f"seen-{rank}.json").read_text()) for rank in (0, 1)
    )
    assert len(first) == len(second) == 4
    assert len({*first, *second}) == 8


@pytest.mark.slow
def test_the_first_process_alone_writes_and_speaks(trained: Trained) -> None:
    run = load_run(trained.run)
    assert run.record.devices == 2
    assert (trained.run / "logs" / "metrics.csv").is_file()
    samples = sorted(path.name for path in (trained.run / "samples").iterdir())
    assert samples == ["step-000002.png", "step-000004.png"]
    assert resume.load(trained.run).step == 4
    assert trained.printed.count("step 4  noise loss") == 1
    assert trained.printed.count("Trained 4 steps") == 1


@pytest.mark.slow
def test_two_devices_learn_what_one_does_from_two_batches_a_step(
    trained: Trained,
    tiny_data: Path,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def note(self: TrainingModule, optimizer: object) -> None:
        if self.step == 0:
            gradients = {name: p.grad for name, p in self.model.named_parameters()}
            save_file(gradients, tmp_path / "gradients.safetensors")

    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", note, raising=False)
    one = changed(config, {"optimisation.steps": 1, "optimisation.accumulate": 2})
    train.train(TrainingPlan(tiny_data, tmp_path / "run", one, workers=0))
    alone = load_file(tmp_path / "gradients.safetensors")
    together = load_file(trained.notes / "gradients.safetensors")
    assert any((gradient != 0).any() for gradient in alone.values())
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.long  # in short, on one device: `test_resume`
def test_a_stopped_training_on_two_devices_goes_on_to_the_very_same_weights(
    trained: Trained, tiny_data: Path, config: Config, tmp_path: Path
) -> None:
    stopped = shutil.copytree(trained.notes / "as-of-step-2", tmp_path / "run")
    printed = train_on_two(tiny_data, stopped, tmp_path / "notes", config, "--resume")
    assert "going on after step 2" in printed
    ours, theirs = (load_file(run / resume.RESUME_FILE) for run in (stopped, trained.run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.long
def test_two_processes_may_leave_the_segmentation_network_for_later(
    tiny_data: Path, config: Config, tmp_path: Path
) -> None:
    config = changed(config, {"optimisation.segmentation_from": 0.5})
    train_on_two(tiny_data, tmp_path / "run", tmp_path, config)
    first, second = (load_file(tmp_path / f"weights-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resume.load(tmp_path / "run").step == 4


@pytest.mark.slow
def test_it_goes_on_with_as_many_devices_as_before(
    trained: Trained, tiny_data: Path, config: Config
) -> None:
    with pytest.raises(CheckpointError, match="its devices was 2 and is now 1"):
        train.train(TrainingPlan(tiny_data, trained.run, config, workers=0, resumed=True))


def test_gradients_of_a_network_that_is_left_for_later_are_not_waited_for(config: Config) -> None:
    later = changed(config, {"optimisation.segmentation_from": 0.5})
    at_once, left = (train._strategy(one.training.optimisation) for one in (config, later))
    assert (at_once, left) == ("ddp", "ddp_find_unused_parameters_true")


def test_more_devices_than_there_are_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="4 devices were asked for; this machine has 2 GPUs"):
        parallel.require(4)
    parallel.require(2)


def test_one_device_is_first_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert parallel.rank(1) == 0
    assert parallel.rank(4) == 3
