"""Parts that lie alike are told from pieces of a texture."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from diffusionad_client.cli import main
from diffusionad_training.config import Config
from diffusionad_training.config.presets import ON_TEXTURES, customised
from diffusionad_training.config.settings import changed
from diffusionad_training.data.images import load_all
from diffusionad_training.data.layout import read
from diffusionad_training.data.structure import Surface, is_texture, shared_structure
from diffusionad_training.errors import DataError
from diffusionad_training.fit import train
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.run.checkpoint import load_run

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


def blobs(rng: np.random.Generator, size: int = 128) -> np.ndarray:
    smooth = ndimage.gaussian_filter(rng.normal(size=(size, size)), 3)
    return 128 + 40 * smooth / smooth.std()


def pictures(arrays: list[np.ndarray]) -> np.ndarray:
    return np.stack(
        [np.repeat(np.clip(a, 0, 255).astype(np.uint8)[..., None], 3, -1) for a in arrays]
    )


@pytest.mark.parametrize("count", [4, 100])
def test_independent_images_share_nothing(count: int) -> None:
    rng = np.random.default_rng(0)
    images = pictures([blobs(rng) for _ in range(count)])
    assert abs(shared_structure(images)) < 0.05
    assert is_texture(images)


def test_parts_share_what_they_have_in_common() -> None:
    rng = np.random.default_rng(0)
    part = blobs(rng)
    # As much of its own in each image as in common: half of the variance.
    images = pictures([128 + (part - 128 + blobs(rng) - 128) / 2 for _ in range(30)])
    assert shared_structure(images) == pytest.approx(0.5, abs=0.05)
    assert not is_texture(images)


def test_parts_that_lie_a_little_askew_still_do() -> None:
    rng = np.random.default_rng(0)
    part = ndimage.zoom(blobs(rng, 64), 4)  # features of 12 pixels at 256
    images = pictures([np.roll(part, rng.integers(-4, 5, size=2), axis=(0, 1)) for _ in range(30)])
    assert not is_texture(images)


@pytest.mark.parametrize("count", [1, 5])
def test_images_without_features_are_a_texture(count: int) -> None:
    assert shared_structure(np.full((count, 64, 64, 3), 90, np.uint8)) == 0


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real images at ../shared/data")
@pytest.mark.parametrize(
    ("category", "texture"), [("magnetic_tile", True), ("mvtec_bottle", False)]
)
def test_real_products(category: str, texture: bool) -> None:
    images = load_all(read(SHARED_DATA / category).require_train()[::8], 256)
    assert is_texture(images) == texture


@pytest.mark.parametrize(
    ("alike", "surface", "adapted"),
    [
        (True, "auto", False),
        (False, "auto", True),
        (True, "texture", True),
        (False, "part", False),
    ],
)
def test_edge_is_adapted_to_a_texture(
    alike: bool, surface: Surface, adapted: bool, tiny_config: Config, tmp_path: Path
) -> None:
    good = tmp_path / "data" / "train" / "good"
    good.mkdir(parents=True)
    for index in range(8):
        (image,) = pictures([blobs(np.random.default_rng(0 if alike else index), 64)])
        Image.fromarray(image).save(good / f"{index}.png")
    config = changed(tiny_config, {"synthesis.relocation_share": 0.4})
    on_texture = changed(config, {"synthesis.relocation_share": 0.0})
    lines: list[str] = []
    train.train(
        TrainingPlan(
            tmp_path / "data",
            tmp_path / "run",
            config,
            on_texture=on_texture,
            surface=surface,
            workers=0,
        ),
        report=lines.append,
    )
    kept = load_run(tmp_path / "run").config.training.synthesis.relocation_share
    assert kept == (0 if adapted else 0.4)
    assert any("share no structure" in line for line in lines) == (not alike and surface == "auto")
    assert any("on a texture: " in line for line in lines) == adapted


def test_a_preset_without_changes_for_textures_does_not_look(
    tiny_config: Config, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(images: np.ndarray) -> bool:
        raise AssertionError("looked for a texture")

    monkeypatch.setattr(train, "is_texture", never)
    plan = TrainingPlan(tiny_data, tmp_path / "run", tiny_config, on_texture=tiny_config, workers=0)
    train.train(plan)


def chosen_for_a_texture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> tuple[Config, Config]:
    """What the command would train with on a part and on a texture."""
    plans: list[TrainingPlan] = []

    def noted(plan: TrainingPlan, **_: object) -> None:
        plans.append(plan)
        raise DataError("enough")

    monkeypatch.setattr(train, "train", noted)
    arguments = ["train", str(tmp_path), "--output", str(tmp_path / "run"), *options]
    CliRunner().invoke(main, arguments)
    (plan,) = plans
    assert plan.on_texture is not None
    return plan.config, plan.on_texture


def test_on_a_texture_what_was_set_holds_even_where_it_is_the_preset_s_own_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--steps", "12000", "--set", "synthesis.relocation_share=0.4"]
    part, texture = chosen_for_a_texture(tmp_path, monkeypatch, *options)
    assert part.training.optimisation.steps == texture.training.optimisation.steps == 12000
    assert texture.training.synthesis.relocation_share == 0.4
    assert texture.training.synthesis.stroke_share == 0
    assert texture.training.synthesis.visibility > 0


def test_a_preset_without_one_for_textures_is_the_same_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, texture = chosen_for_a_texture(tmp_path, monkeypatch, "--preset", "paper")
    assert part == texture


@pytest.mark.parametrize("preset", ON_TEXTURES)
def test_a_preset_for_textures_is_of_the_same_detector(preset: str) -> None:
    for with_textures in (True, False):
        part, texture = (
            customised(preset, with_textures=with_textures, on_texture=on_texture)
            for on_texture in (False, True)
        )
        assert part.detector == texture.detector
        assert part.preset == texture.preset
        assert (part.training.synthesis.texture_share == 0) == (not with_textures)
        assert (texture.training.synthesis.texture_share == 0) == (not with_textures)
