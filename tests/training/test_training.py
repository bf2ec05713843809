"""Training end to end, in a few steps: what it writes, repeats, refuses and learns."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from diffusionad_client.cli import main
from diffusionad_training import training
from diffusionad_training.checkpoint import load_run
from diffusionad_training.config import Config
from diffusionad_training.data.batches import TrainingBatches
from diffusionad_training.data.images import load_all
from diffusionad_training.data.layout import training_images
from diffusionad_training.errors import CheckpointError, DataError, TrainingError
from diffusionad_training.training_module import TrainingModule


def test_a_run_says_what_it_was_made_from(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    assert run.record.training_images == 7
    assert len(run.record.held_out) == 3
    assert all(name.startswith("train/good/") for name in run.record.held_out)
    assert run.record.steps == 6
    assert run.held_out_images().shape == (3, 64, 64, 3)


def test_a_run_holds_no_pickle_and_no_path(tiny_run: Path, tiny_data: Path) -> None:
    files = [path for path in tiny_run.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".npz", ".csv", ".png"}
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
    module = training.train(tiny_data, tmp_path / "run", tiny_config, workers=0)
    images = torch.from_numpy(load_all(training_images(tiny_data)[:2], 64))
    with torch.no_grad():
        before = module.trained_model().eval()(images)
        after = load_run(tmp_path / "run").model(images)
    assert torch.equal(before.score, after.score)
    assert torch.equal(before.anomaly_map, after.anomaly_map)


def test_the_same_seed_trains_the_same_weights(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    for name, seed, workers in (("a", 1, 0), ("b", 1, 1), ("c", 2, 0)):
        training.train(tiny_data, tmp_path / name, tiny_config, workers=workers, seed=seed)
    digests = [load_run(tmp_path / name).weights_digest for name in "abc"]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_training_lowers_both_losses(tiny_data: Path, tiny_config: Config, tmp_path: Path) -> None:
    longer = dataclasses.replace(
        tiny_config, optimisation=dataclasses.replace(tiny_config.optimisation, steps=60)
    )
    training.train(tiny_data, tmp_path / "run", longer, workers=0)
    lines = (tmp_path / "run" / "logs" / "metrics.csv").read_text().splitlines()
    columns = lines[0].split(",")
    first, last = (
        dict(zip(columns, map(float, line.split(",")), strict=True))
        for line in (lines[1], lines[-1])
    )
    assert last["noise_loss"] < 0.7 * first["noise_loss"]
    assert last["mask_loss"] < 0.7 * first["mask_loss"]


def test_both_parametrisations_train(tiny_data: Path, tiny_config: Config, tmp_path: Path) -> None:
    network = dataclasses.replace(tiny_config.noise_network, parametrisation="epsilon")
    config = dataclasses.replace(tiny_config, noise_network=network, signed_range=False)
    module = training.train(tiny_data, tmp_path / "run", config, workers=0)
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
    images = load_all(training_images(tiny_data), 64)
    batch = TrainingBatches(images, None, tiny_config, count=1, seed=0)[0]
    batch["anomalous"][:] = True  # no noise loss at all
    module.training_step(batch, 0).backward()
    gradients = [p.grad for p in module.model.noise_network.parameters() if p.grad is not None]
    assert gradients
    assert any((gradient != 0).any() for gradient in gradients)


def test_a_loss_that_is_no_number_stops_training_with_the_place(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    hot = dataclasses.replace(
        tiny_config.optimisation, noise_learning_rate=1e30, gradient_clip=0.0, warmup_steps=0
    )
    config = dataclasses.replace(tiny_config, optimisation=hot)
    with pytest.raises(TrainingError, match="at step .*lower the learning rates"):
        training.train(tiny_data, tmp_path / "run", config, workers=0)


def test_one_image_is_too_few(tmp_path: Path, tiny_config: Config) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "only.png")
    with pytest.raises(DataError, match="1 good image"):
        training.train(tmp_path, tmp_path / "run", tiny_config, workers=0)


def test_a_time_budget_ends_the_run_early(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    endless = dataclasses.replace(
        tiny_config, optimisation=dataclasses.replace(tiny_config.optimisation, steps=100_000)
    )
    module = training.train(tiny_data, tmp_path / "run", endless, workers=0, time_budget=3)
    assert 0 < module.global_step < 100_000
    assert module.optimizers().optimizer.param_groups[0]["lr"] < 1e-4  # decayed to the end


def test_a_folder_that_is_no_run_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="config.json is missing"):
        load_run(tmp_path)


def test_a_run_with_other_weights_than_its_config_is_refused(
    tiny_data: Path, tiny_config: Config, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    training.train(tiny_data, run, tiny_config, workers=0)
    document = json.loads((run / "config.json").read_text())
    document["segmentation_network"]["widths"] = [8, 32]
    (run / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_run(run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder of images"),
        (["DATA", "--preset", "huge"], "no preset 'huge'; there are paper, edge"),
        (["DATA", "--image-size", "100"], "size (100) must be a positive multiple of 32"),
        (["DATA", "--textures", "nowhere"], "nowhere: no such folder of textures"),
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
