"""Training end to end, in a few steps: what it writes, repeats, refuses and learns."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from diffusionad_client.cli import main
from diffusionad_training.config import Config, GuidanceConfig
from diffusionad_training.config.settings import changed
from diffusionad_training.data.batches import Batch, TrainingBatches
from diffusionad_training.data.images import load_all
from diffusionad_training.data.layout import read
from diffusionad_training.errors import CheckpointError, DataError, TrainingError
from diffusionad_training.fit import callbacks, train
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.fit.rates import decayed
from diffusionad_training.run.checkpoint import load_run


def test_a_run_says_what_it_was_made_from(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    assert run.record.training_images == 7
    assert len(run.record.held_out) == 3
    assert all(name.startswith("train/good/") for name in run.record.held_out)
    assert run.record.steps == 6
    assert run.held_out_images().shape == (3, 64, 64, 3)


def test_a_run_holds_no_pickle_and_no_path(tiny_run: Path, tiny_data: Path) -> None:
    files = [path for path in tiny_run.rglob("*") if path.is_file()]
    files = [path for path in files if path.parent.name != ".diffusionad"]
    logs = [path for path in files if path.parent.name == "tensorboard"]
    assert {path.name.split(".")[0] for path in logs} == {"events", "hparams"}
    kinds = {path.suffix for path in files if path not in logs}
    assert kinds <= {".json", ".safetensors", ".npz", ".csv", ".png"}
    for path in files:
        assert str(tiny_data.parent).encode() not in path.read_bytes()


def test_a_run_logs_losses_and_draws_samples(tiny_run: Path) -> None:
    header = (tiny_run / "logs" / "metrics.csv").read_text().splitlines()[0]
    assert {"noise_loss", "mask_loss"} <= set(header.split(","))
    with Image.open(tiny_run / "samples" / "step-000006.png") as sheet:
        assert sheet.size == (8 * 64, 4 * 64)


def test_a_loaded_run_answers_as_the_saved_model_did(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    module = train.train(TrainingPlan(tiny_data, tmp_path / "run", tiny_config, workers=0))
    images = torch.from_numpy(load_all(read(tiny_data).require_train()[:2], 64))
    with torch.no_grad():
        before = module.trained_model().eval()(images)
        after = load_run(tmp_path / "run").model(images)
    assert torch.equal(before.score, after.score)
    assert torch.equal(before.anomaly_map, after.anomaly_map)


def test_the_same_seed_trains_the_same_weights(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    for name, seed, workers in (("a", 1, 0), ("b", 1, 1), ("c", 2, 0)):
        train.train(
            TrainingPlan(tiny_data, tmp_path / name, tiny_config, workers=workers, seed=seed)
        )
    runs = [load_run(tmp_path / name) for name in "abc"]
    assert runs[0].weights_digest == runs[1].weights_digest
    first, other = (run.model.noise_network.first.weight for run in (runs[0], runs[2]))
    assert not torch.equal(first, other)


def test_training_lowers_both_losses(tiny_data: Path, tiny_config: Config, tmp_path: Path) -> None:
    longer = changed(tiny_config, {"optimisation.steps": 40})
    train.train(TrainingPlan(tiny_data, tmp_path / "run", longer, workers=0))
    lines = (tmp_path / "run" / "logs" / "metrics.csv").read_text().splitlines()
    columns = lines[0].split(",")
    first, last = (
        dict(zip(columns, map(float, line.split(",")), strict=True))
        for line in (lines[1], lines[-1])
    )
    assert last["noise_loss"] < 0.7 * first["noise_loss"]
    assert last["mask_loss"] < 0.7 * first["mask_loss"]


def test_both_parametrisations_train(tiny_data: Path, tiny_config: Config, tmp_path: Path) -> None:
    config = changed(
        tiny_config, {"noise_network.parametrisation": "epsilon", "signed_range": False}
    )
    module = train.train(TrainingPlan(tiny_data, tmp_path / "run", config, workers=0))
    assert module.global_step == 6


def test_the_segmentation_loss_reaches_the_noise_network(
    tiny_data: Path, tiny_config: Config
) -> None:
    torch.manual_seed(0)
    module = TrainingModule(tiny_config, seed=0)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    for parameter in module.model.parameters():  # away from the zeros it starts with
        if (parameter == 0).all():
            torch.nn.init.normal_(parameter, std=0.02)
    images = load_all(read(tiny_data).require_train(), 64)
    batch = TrainingBatches(images, None, tiny_config, count=1, seed=0)[0]
    batch["anomalous"][:] = True  # no noise loss at all
    module.training_step(batch, 0).backward()
    gradients = [p.grad for p in module.model.noise_network.parameters() if p.grad is not None]
    assert gradients
    assert any((gradient != 0).any() for gradient in gradients)


def test_a_loss_that_is_no_number_stops_training_with_the_place(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    config = changed(
        tiny_config,
        {
            "optimisation.noise_learning_rate": 1e30,
            "optimisation.gradient_clip": 0.0,
            "optimisation.warmup_steps": 0,
        },
    )
    with pytest.raises(TrainingError, match="at step .*lower the learning rates"):
        train.train(TrainingPlan(tiny_data, tmp_path / "run", config, workers=0))


def test_one_image_is_too_few(tmp_path: Path, tiny_config: Config) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "only.png")
    with pytest.raises(DataError, match="1 good image"):
        train.train(TrainingPlan(tmp_path, tmp_path / "run", tiny_config, workers=0))


def test_a_time_budget_ends_the_run_early(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    endless = changed(tiny_config, {"optimisation.steps": 100_000})
    module = train.train(
        TrainingPlan(tiny_data, tmp_path / "run", endless, workers=0, time_budget=3)
    )
    assert 0 < module.global_step < 100_000
    assert module.optimizers().optimizer.param_groups[0]["lr"] < 1e-4  # decayed to the end


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "run.json"])
def test_a_run_that_lacks_a_file_says_which(copied_run: Path, name: str) -> None:
    (copied_run / name).unlink()
    with pytest.raises(CheckpointError, match=f"copy: not a finished run: {name} is missing"):
        load_run(copied_run)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "run.json"])
def test_a_run_with_a_damaged_file_is_refused_by_its_place(copied_run: Path, name: str) -> None:
    (copied_run / name).write_bytes(b"\xff\x00 damaged")
    with pytest.raises(CheckpointError, match="copy: the run cannot be read"):
        load_run(copied_run)


def test_held_out_images_of_another_run_are_refused(copied_run: Path) -> None:
    np.savez(copied_run / "held_out.npz", images=np.zeros((3, 64, 64, 3), np.uint8))
    with pytest.raises(CheckpointError, match="not the held-out images of this run"):
        load_run(copied_run).held_out_images()


def test_training_over_a_run_leaves_nothing_of_the_old_one(
    tiny_data: Path, tiny_config: Config, copied_run: Path
) -> None:
    config = changed(
        tiny_config,
        {
            "optimisation.noise_learning_rate": 1e30,
            "optimisation.gradient_clip": 0.0,
            "optimisation.warmup_steps": 0,
        },
    )
    with pytest.raises(TrainingError):
        train.train(TrainingPlan(tiny_data, copied_run, config, workers=0, overwrite=True))
    with pytest.raises(CheckpointError, match="not a finished run"):
        load_run(copied_run)


def test_what_a_checkpoint_holds_is_averaged_up_to_its_step(
    tiny_data: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = callbacks.Checkpoints._save

    def record(self: callbacks.Checkpoints, module: TrainingModule) -> str:
        assert module.averaged is not None
        seen.append((module.global_step, int(module.averaged.n_averaged)))
        return original(self, module)

    monkeypatch.setattr(callbacks.Checkpoints, "_save", record)
    train.train(
        TrainingPlan(tiny_data, tmp_path / "run", tiny_config, workers=0, checkpoint_steps=2)
    )
    assert seen == [(2, 2), (4, 4), (6, 6)]


def test_an_interrupted_training_says_what_is_saved(
    tiny_data: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainingModule.training_step

    def interrupted(self: TrainingModule, batch: Batch, index: int) -> torch.Tensor:
        if index == 4:
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(TrainingModule, "training_step", interrupted)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train.train(
            TrainingPlan(
                *(tiny_data, tmp_path / "run", tiny_config), workers=0, checkpoint_steps=3
            ),
            report=lines.append,
        )
    assert lines[-1] == "stopped; the run is saved as of step 4"
    assert load_run(tmp_path / "run").record.steps == 4


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_process_of_its_own_that_is_ended_is_named_with_what_is_saved(
    tiny_data: Path, tiny_config: Config, tmp_path: Path, by: signal.Signals
) -> None:
    """Killed, as when memory runs out; interrupted alone, it takes its sockets with it."""

    def end(_: str) -> None:
        for process in multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, by)

    endless = changed(tiny_config, {"optimisation.steps": 100_000})
    plan = TrainingPlan(tiny_data, tmp_path / "run", endless, workers=1, checkpoint_steps=2)
    with pytest.raises(TrainingError, match=r"makes batches was ended.*--resume goes on from step"):
        train.train(plan, report=end)
    assert load_run(tmp_path / "run").record.steps >= 2


@pytest.mark.parametrize(
    ("guidance", "small_steps", "large_steps"),
    [
        (GuidanceConfig(small_step=1, large_step=3, tau=2, last_step=4), [0, 1, 2], [3, 4]),
        (GuidanceConfig(small_step=5, large_step=9, spread=1), [4, 5, 6], [8, 9, 10]),
    ],
    ids=["both sides of tau", "near those of inference"],
)
def test_steps_are_drawn_from(
    guidance: GuidanceConfig,
    small_steps: list[int],
    large_steps: list[int],
    tiny_data: Path,
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = dataclasses.replace(tiny_config.detector, guidance=guidance)
    module = TrainingModule(dataclasses.replace(tiny_config, detector=detector), seed=0)
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    drawn: list[torch.Tensor] = []
    estimate = module.model.estimate
    monkeypatch.setattr(
        module.model, "estimate", lambda x_t, t: drawn.append(t) or estimate(x_t, t)
    )
    images = load_all(read(tiny_data).require_train(), 64)
    batches = TrainingBatches(images, None, tiny_config, count=30, seed=0)
    with torch.no_grad():
        for index, batch in enumerate(batches):
            module.training_step(batch, index)
    small, large = (torch.cat([t.chunk(2)[side] for t in drawn]) for side in (0, 1))
    assert sorted(set(small.tolist())) == small_steps
    assert sorted(set(large.tolist())) == large_steps


def test_the_segmentation_network_may_begin_later(
    tiny_data: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(tiny_config, {"optimisation.segmentation_from": 0.5})
    step, seen = TrainingModule.training_step, []

    def watched(self: TrainingModule, batch: Batch, index: int) -> torch.Tensor:
        first = next(self.model.segmentation_network.parameters())
        seen.append(first.detach().clone())
        return step(self, batch, index)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    train.train(TrainingPlan(tiny_data, tmp_path / "run", config, workers=0))
    moved = [not torch.equal(*pair) for pair in itertools.pairwise(seen)]
    assert moved == [False, False, False, True, True]  # the fourth step is the first to


@pytest.mark.parametrize(
    ("settings", "averaged"),
    [
        ({}, 6),
        ({"segmentation_from": 0.5}, 3),
        ({"crop_side": 32, "crop_share": 0.7}, 2),
        ({"crop_side": 32, "crop_share": 0.7, "segmentation_from": 0.2}, 2),
    ],
)
def test_averages_begin_anew_where_networks_or_images_change(
    settings: dict[str, float],
    averaged: int,
    tiny_data: Path,
    tiny_config: Config,
    tmp_path: Path,
) -> None:
    changes = {f"optimisation.{name}": value for name, value in settings.items()}
    config = changed(tiny_config, changes)  # 6 steps
    module = train.train(TrainingPlan(tiny_data, tmp_path / "run", config, workers=0))
    assert module.averaged is not None
    assert int(module.averaged.n_averaged) == averaged


def test_a_step_reads_the_clock_once(
    tiny_data: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = itertools.count()
    clock = property(lambda self: 10.0 * next(readings))
    monkeypatch.setattr(TrainingModule, "seconds", clock)
    module = train.train(
        TrainingPlan(tiny_data, tmp_path / "run", tiny_config, workers=0, time_budget=1000)
    )
    # A step each, one for the trainer's limit before and two for the last checkpoint's record.
    assert next(readings) <= tiny_config.training.optimisation.steps + 3
    assert module.step == tiny_config.training.optimisation.steps


def test_rates_warm_up_and_decay_to_nothing(tiny_config: Config) -> None:
    optimisation = tiny_config.training.optimisation  # 6 steps, 2 of warm-up
    rates = [decayed(step, 0.0, optimisation) for step in range(7)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[6] == pytest.approx(0)


def test_the_segmentation_rate_comes_back_as_in_the_public_code(tiny_config: Config) -> None:
    settings = {
        "steps": 1000,
        "warmup_steps": 0,
        "cosine_decay": False,
        "segmentation_cosine_period": 20,
    }
    config = changed(tiny_config, {f"optimisation.{k}": value for k, value in settings.items()})
    module = TrainingModule(config, seed=0)
    scheduled = module.configure_optimizers()["lr_scheduler"]
    noise, segmentation = scheduled["scheduler"].lr_lambdas  # type: ignore[index,union-attr]
    assert [noise(step) for step in (0, 10, 20)] == [1, 1, 1]
    assert [segmentation(step) for step in (0, 5, 10, 20)] == pytest.approx([1, 0.5, 0, 1])


def test_images_grouped_with_test_images_are_left_out(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    names = sorted(p.relative_to(data).as_posix() for p in data.glob("t*/good/*.png"))
    group_of = {name: name for name in names} | {"train/good/003.png": "test/good/000.png"}
    rows = [f"{name},{group}" for name, group in group_of.items()]
    (data / "groups.csv").write_text("\n".join(["path,group", *rows]))
    lines: list[str] = []
    train.train(TrainingPlan(data, tmp_path / "run", tiny_config, workers=0), report=lines.append)
    record = load_run(tmp_path / "run").record
    assert record.left_out == 1
    assert record.training_images + len(record.held_out) == 9
    assert any("1 left out" in line for line in lines)


def test_a_run_with_other_weights_than_its_config_is_refused(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train.train(TrainingPlan(tiny_data, run, tiny_config, workers=0))
    document = json.loads((run / "config.json").read_text())
    document["detector"]["segmentation_network"]["widths"] = [8, 32]
    (run / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_run(run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder of images"),
        (["DATA", "--preset", "huge"], "no preset 'huge'; there are paper, standard, edge"),
        (["DATA", "--image-size", "100"], "size (100) must be a multiple of 64"),
        (["DATA", "--textures", "nowhere"], "nowhere: no such folder of textures"),
        (["DATA", "--seed", "-1"], "-1 is not in the range"),
        (["DATA", "--workers", "-1"], "-1 is not in the range"),
        (["DATA", "--set", "size"], "'size' is not SETTING=VALUE"),
        (["DATA", "--set", "loss.gamma=2"], "no setting 'loss.gamma'"),
        (["DATA", "--time-budget", "soon"], "'soon' is not a time; write it as 90s, 45m or 3h"),
    ],
)
def test_wrong_input_is_one_clear_line(
    arguments: list[str], message: str, tiny_data: Path, tmp_path: Path
) -> None:
    arguments = [str(tiny_data) if word == "DATA" else word for word in arguments]
    result = CliRunner().invoke(main, ["train", *arguments, "--output", str(tmp_path / "run")])
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output


def test_an_existing_run_is_not_trained_over(tiny_run: Path, tiny_data: Path) -> None:
    result = CliRunner().invoke(main, ["train", str(tiny_data), "--output", str(tiny_run)])
    assert result.exit_code == 1
    assert "holds a run already" in result.output
