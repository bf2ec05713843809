"""Configs check themselves and survive a round trip through JSON."""

import dataclasses
import json

import pytest

from diffusionad_training.config import (
    Config,
    GuidanceConfig,
    NoiseNetworkConfig,
    OptimisationConfig,
    ScheduleConfig,
    SynthesisConfig,
)
from diffusionad_training.errors import ConfigError
from diffusionad_training.presets import EDGE, PAPER, PRESETS


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_a_config_survives_json(config: Config) -> None:
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GuidanceConfig(small_step=400, large_step=200), r"small_step \(400\)"),
        (lambda: GuidanceConfig(split=999), r"split \(999\)"),
        (lambda: NoiseNetworkConfig(parametrisation="v"), "'v'"),
        (lambda: NoiseNetworkConfig(base_channels=48), r"base_channels \(48\)"),
        (lambda: NoiseNetworkConfig(attention_levels=(6,)), r"attention_levels \(6,\)"),
        (lambda: ScheduleConfig(beta_first=0.1, beta_last=0.01), r"beta_first \(0.1\)"),
        (lambda: SynthesisConfig(opacity=(0.5, 1.0)), r"opacity \(0.5, 1.0\)"),
        (lambda: SynthesisConfig(texture_share=0, self_share=0), "must be positive"),
        (lambda: OptimisationConfig(normal_per_batch=0), "at least one normal image"),
        (lambda: dataclasses.replace(EDGE, size=100), r"size \(100\) must be .* multiple of 32"),
        (lambda: dataclasses.replace(PAPER, schedule=ScheduleConfig(steps=500)), "last_step"),
    ],
)
def test_a_setting_out_of_range_is_named(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_unknown_setting_is_refused_by_its_place() -> None:
    document = json.loads(EDGE.to_json())
    document["guidance"]["smallstep"] = 3
    with pytest.raises(ConfigError, match=r"config\.guidance: unknown settings \['smallstep'\]"):
        Config.from_json(json.dumps(document))


def test_the_paper_preset_follows_the_paper() -> None:
    assert PAPER.schedule == ScheduleConfig(steps=1000, beta_first=1e-4, beta_last=1e-2)
    assert (PAPER.guidance.small_step, PAPER.guidance.large_step) == (200, 400)
    assert (PAPER.guidance.weight, PAPER.guidance.split) == (1.0, 300)
    assert (PAPER.optimisation.normal_per_batch, PAPER.optimisation.synthetic_per_batch) == (8, 8)
    assert PAPER.optimisation.noise_learning_rate == 1e-4
    assert PAPER.loss.focal_weight == 5
    assert (PAPER.synthesis.texture_share, PAPER.synthesis.self_share) == (0.5, 0.5)
    assert PAPER.noise_network.parametrisation == "epsilon"
