"""A training may begin with the weights of an earlier run."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from diffusionad_client.cli import main
from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.errors import CheckpointError
from diffusionad_training.fit import train
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.run.checkpoint import load_run
from diffusionad_training.run.initial_weights import load_initial_weights


def still(config: Config, **optimisation: object) -> Config:
    """The same, for one step that moves nothing."""
    changes = {"steps": 1, "noise_learning_rate": 1e-12, "segmentation_learning_rate": 1e-12}
    return changed(
        config, {f"optimisation.{name}": one for name, one in (changes | optimisation).items()}
    )


def test_a_training_begins_with_the_weights_of_another_run(
    tiny_data: Path, tiny_config: Config, tiny_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    train.train(
        TrainingPlan(tiny_data, output, still(tiny_config), begin_from=tiny_run, workers=0, seed=7)
    )
    ours, theirs = load_run(output), load_run(tiny_run)
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(parameter, theirs.model.get_parameter(name))
    assert ours.record.begun_from == theirs.weights_digest
    assert theirs.record.begun_from is None
    assert not torch.equal(ours.model.noise, theirs.model.noise)  # of the seed, not of the run


def test_images_may_be_of_another_size(tiny_config: Config, tiny_run: Path) -> None:
    larger = changed(tiny_config, {"size": tiny_config.detector.size * 2})
    module = TrainingModule(larger, seed=0, initial=load_initial_weights(tiny_run, larger))
    assert module.trained_model().noise.shape[-1] == larger.detector.size


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [
        ("noise_network", "groups", 4),
        ("noise_network", "parametrisation", "epsilon"),
        ("segmentation_network", "widths", (4, 8)),
        ("schedule", "beta_last", 0.02),
    ],
)
def test_weights_of_other_networks_are_refused_by_the_setting(
    tiny_config: Config, tiny_run: Path, section: str, setting: str, value: object
) -> None:
    config = changed(tiny_config, {f"{section}.{setting}": value})
    with pytest.raises(CheckpointError, match=rf"{section}\.{setting} differ"):
        load_initial_weights(tiny_run, config)


def test_what_the_weights_do_not_depend_on_may_differ(tiny_config: Config, tiny_run: Path) -> None:
    load_initial_weights(
        tiny_run,
        changed(tiny_config, {"noise_network.recompute": True, "noise_network.dropout": 0.1}),
    )


def test_a_run_may_be_trained_over_from_its_own_weights_and_resumed_without_them(
    tiny_data: Path, tiny_config: Config, tiny_run: Path, copied_run: Path
) -> None:
    def train_for(steps: int, **options: bool) -> None:
        config = still(tiny_config, steps=steps)
        train.train(
            TrainingPlan(tiny_data, copied_run, config, begin_from=copied_run, workers=0, **options)
        )

    digest = load_run(copied_run).weights_digest
    train_for(2, overwrite=True)
    train_for(2, resumed=True)  # its weights are no longer there, and not asked for
    assert load_run(copied_run).record.begun_from == digest


def test_no_run_to_begin_from_is_one_clear_line(tiny_data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["train", str(tiny_data), "--output", str(tmp_path / "run"), "--from", "nowhere"]
    )
    assert result.exit_code != 0
    assert "nowhere: not a finished run" in result.output
    assert not (tmp_path / "run" / "config.json").exists()
