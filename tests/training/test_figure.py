"""The figure of a run shows all that its way to restore comes by, each under its letters."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.evaluation import figure
from diffusionad_training.method.model import DiffusionAD

GUIDED = ["x0", "x_ts", "x_tb", "x0_s", "n", "x0_g", "map"]


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({}, GUIDED),
        ({"guidance.weight": 0.0}, ["x0", "x_ts", "x0_s", "map"]),
        ({"restoration": "autoencoder"}, ["x0", "x0_hat", "map"]),
    ],
    ids=["guided", "one scale", "autoencoder"],
)
def test_each_thing_on_the_way_has_its_column(
    tiny_config: Config, settings: dict[str, object], labels: list[str]
) -> None:
    model = DiffusionAD(changed(tiny_config, settings).detector).eval()
    size = model.config.size
    images = np.random.default_rng(0).integers(0, 255, (2, size, size, 3), np.uint8)
    shown = figure.columns(model, images)
    assert list(shown) == labels
    for pictures in shown.values():
        assert pictures.shape == images.shape
        assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(shown["x0"], images)


def test_the_command_draws_a_row_for_each_image(
    tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    images = [str(path) for path in sorted(tiny_data.rglob("*.png"))[:3]]
    output = tmp_path / "figure.jpg"
    result = CliRunner().invoke(figure.main, [str(tiny_run), *images, "--output", str(output)])
    assert result.exit_code == 0, result.output
    with Image.open(output) as picture:
        assert picture.width >= len(GUIDED) * figure.CELL
        assert picture.height >= len(images) * figure.CELL


def test_what_is_no_run_is_one_clear_line(tiny_data: Path, tmp_path: Path) -> None:
    image = str(next(tiny_data.rglob("*.png")))
    output = str(tmp_path / "figure.jpg")
    result = CliRunner().invoke(figure.main, [str(tmp_path), image, "--output", output])
    assert result.exit_code == 1
    assert str(tmp_path) in result.output
    assert len(result.output.splitlines()) == 1
