"""How much detail a size loses is measured, and said where it is notable."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionad_training.config import Config
from diffusionad_training.data import foregrounds
from diffusionad_training.data.images import load_all
from diffusionad_training.data.layout import read
from diffusionad_training.data.resolution import DetailLost, detail_lost
from diffusionad_training.fit import train
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.run.checkpoint import load_run

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


def stripes(path: Path, cycles: int, side: int = 256, amplitude: float = 60) -> Path:
    """A picture of so many stripes across."""
    phase = (np.arange(side) + 0.5) * (2 * np.pi * cycles / side)
    row = 128 + amplitude * np.cos(phase)
    Image.fromarray(np.tile(row, (side, 1)).astype(np.uint8)).convert("RGB").save(path)
    return path


def test_stripes_finer_than_the_pixels_are_lost_and_coarser_ones_are_not(tmp_path: Path) -> None:
    fine, coarse = stripes(tmp_path / "f.png", 60), stripes(tmp_path / "c.png", 20)
    lost = detail_lost([fine], 64, None, depth=16)
    assert lost.share == pytest.approx(1, abs=0.05)
    assert lost.larger == 128
    assert lost.share_at_larger < 0.05
    assert detail_lost([coarse], 64, None, depth=16).share < 0.05


@pytest.mark.parametrize("brightness", [0.3, 1.0])
def test_the_share_does_not_hang_on_how_strong_the_contrast_is(
    brightness: float, tmp_path: Path
) -> None:
    both = [stripes(tmp_path / f"{n}.png", n, amplitude=60 * brightness) for n in (20, 60)]
    mixed = np.mean([np.asarray(Image.open(path), dtype=float) for path in both], axis=0)
    Image.fromarray(mixed.astype(np.uint8)).save(tmp_path / "mixed.png")
    lost = detail_lost([tmp_path / "mixed.png"], 64, None, depth=16)
    assert lost.share == pytest.approx(np.sqrt(0.5), abs=0.05)


def test_only_what_lies_inside_the_mask_counts(tmp_path: Path) -> None:
    halves = [stripes(tmp_path / f"{n}.png", n) for n in (20, 60)]
    pixels = [np.asarray(Image.open(path)) for path in halves]
    Image.fromarray(np.concatenate([pixels[0][:128], pixels[1][128:]])).save(tmp_path / "both.png")
    mask = np.zeros((1, 64, 64), dtype=bool)
    mask[:, :28] = True  # on the coarse half
    assert detail_lost([tmp_path / "both.png"], 64, mask, depth=16).share < 0.15
    assert detail_lost([tmp_path / "both.png"], 64, ~mask, depth=16).share > 0.6


@pytest.mark.parametrize("side", [32, 64])
def test_an_image_no_larger_than_the_size_loses_nothing(side: int, tmp_path: Path) -> None:
    lost = detail_lost([stripes(tmp_path / "a.png", 15, side)], 64, None, depth=16)
    assert lost == DetailLost(lost.share, 64)
    assert lost.share < 1e-6


def test_a_blank_image_loses_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (128, 128), (90, 90, 90)).save(tmp_path / "a.png")
    assert detail_lost([tmp_path / "a.png"], 64, None, depth=16).share == 0


def test_the_sentence_says_what_is_lost_and_what_a_larger_size_costs() -> None:
    line = DetailLost(0.131, 256, 384, 0.06).described
    assert line is not None
    for part in ("256 x 256 loses: 13%", "6% at 384", "--image-size 384", "2.2 times as long"):
        assert part in line
    assert DetailLost(0.08, 256, 384, 0.03).described is None
    assert DetailLost(0.2, 256).described is None


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real images at ../shared/data")
@pytest.mark.parametrize(("category", "is_said"), [("mvtec_screw", True), ("mvtec_bottle", False)])
def test_of_a_screw_256_loses_detail_and_of_a_bottle_it_does_not(
    category: str, is_said: bool
) -> None:
    paths = read(SHARED_DATA / category).require_train()[::40]
    masks = foregrounds.estimate(load_all(paths, 256))
    assert (detail_lost(paths, 256, masks, depth=16).described is not None) == is_said


def test_train_says_so_and_the_run_keeps_it(tiny_config: Config, tmp_path: Path) -> None:
    size = tiny_config.detector.size
    (tmp_path / "data").mkdir()
    for number in range(6):
        stripes(tmp_path / "data" / f"{number}.png", size - 4, 4 * size, 50 + number)
    lines: list[str] = []
    plan = TrainingPlan(tmp_path / "data", tmp_path / "run", tiny_config, workers=0)
    train.train(plan, report=lines.append)
    assert any(f"detail that {size} x {size} loses" in line for line in lines)
    kept = load_run(tmp_path / "run").record.detail_lost
    assert kept is not None
    assert kept > 0.5
