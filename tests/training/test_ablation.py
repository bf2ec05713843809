"""The command that compares the parts of the method."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from diffusionad_training.benchmarks.ablation import ablation, of_equal_cost, ways
from diffusionad_training.config import Config
from diffusionad_training.config.presets import PRESETS
from diffusionad_training.config.settings import changed
from diffusionad_training.footprint.cost import inference_flop
from diffusionad_training.method import diffusion
from diffusionad_training.method.model import DiffusionAD
from diffusionad_training.method.restoration import LARGE


@pytest.mark.parametrize("preset", PRESETS)
def test_every_way_is_a_config_of_each_preset(preset: str) -> None:
    assert len({changed(PRESETS[preset], way.settings) for way in ways(PRESETS[preset])}) == 6


def test_the_large_step_alone_is_what_the_large_step_sees(tiny_config: Config) -> None:
    (large,) = [way for way in ways(tiny_config) if way.name == "large step alone"]
    torch.manual_seed(0)
    model = DiffusionAD(changed(tiny_config, large.settings).detector).eval()
    torch.nn.init.normal_(model.noise_network.last[-1].weight, std=0.05)
    x0 = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        noisy, predicted = model.restoration.predict_noise(model, x0)
        restored = model.restoration.reconstruct(model, noisy, predicted)
        alpha_bar = model.alpha_bar_at(torch.tensor([model.config.guidance.large_step]))
        n = diffusion.predict_x0(noisy[:, LARGE], predicted[:, LARGE], alpha_bar)
    torch.testing.assert_close(restored, n.clamp(-1, 1), atol=1e-4, rtol=1e-4)


def test_at_equal_cost_all_cost_about_the_same(tiny_config: Config) -> None:
    config = changed(
        tiny_config, {"noise_network.groups": 8, "segmentation_network.widths": [8, 16, 16]}
    )
    plain = [way for way in ways(config) if way.name in ("small step alone", "guided")]
    before = [inference_flop(changed(config, way.settings)) for way in plain]
    after = [inference_flop(changed(config, w.settings)) for w in of_equal_cost(plain, config)]
    assert max(before) > 1.5 * min(before)
    assert max(after) < 1.2 * min(after)
    assert max(after) == pytest.approx(max(before), rel=0.1)


def test_a_way_that_is_none_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        ablation, [str(tmp_path), "--output", str(tmp_path / "out"), "--only", "guidance"]
    )
    assert result.exit_code == 2
    assert "no way {'guidance'}; there are ['small step alone'" in result.output


@pytest.mark.long
def test_it_trains_and_measures_every_way_and_does_nothing_twice(
    tiny_data: Path, tmp_path: Path
) -> None:
    command = [str(tiny_data), "--output", str(tmp_path / "out"), "--steps", "2"]
    command += ["--set", "size=64", "--set", "optimisation.crop_side=0"]
    command += ["--set", "map_smoothing=0"]
    first = CliRunner().invoke(ablation, command)
    assert first.exit_code == 0, first.output
    rows = [line for line in first.output.splitlines() if line.startswith(f"| {tiny_data.name} |")]
    assert len(rows) == 6
    logs = {path: path.read_text() for path in tmp_path.rglob("*.log")}
    assert CliRunner().invoke(ablation, command).output == first.output
    assert {path: path.read_text() for path in tmp_path.rglob("*.log")} == logs
