"""A smoothed map: the Gaussian mean of what is inspected, and of nothing else."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from diffusionad_training.config import Config
from diffusionad_training.config.settings import changed
from diffusionad_training.errors import ConfigError
from diffusionad_training.method.model import DiffusionAD, Segmentation
from diffusionad_training.method.smoothing import smooth

SIGMA = 2.0


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.rand(2, 40, 48, generator=torch.Generator().manual_seed(0))


def test_it_is_scipy_s_gaussian_filter_where_no_border_is_near(maps: torch.Tensor) -> None:
    expected = ndimage.gaussian_filter(maps.numpy(), (0, SIGMA, SIGMA), truncate=3.0)
    inner = (slice(None), slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(smooth(maps, SIGMA).numpy()[inner], expected[inner], atol=1e-6)


def test_what_is_the_same_everywhere_stays_up_to_the_border() -> None:
    even = torch.full((1, 40, 48), 0.7)
    torch.testing.assert_close(smooth(even, SIGMA), even)
    inside = torch.zeros(40, 48, dtype=torch.bool)
    inside[10:20, 5:30] = True
    torch.testing.assert_close(smooth(even, SIGMA, inside), even * inside)


def test_nothing_comes_in_from_outside_the_region(maps: torch.Tensor) -> None:
    inside = torch.zeros(40, 48, dtype=torch.bool)
    inside[10:20, 5:30] = True
    other = torch.where(inside, maps, 1 - maps)
    torch.testing.assert_close(smooth(maps, SIGMA, inside), smooth(other, SIGMA, inside))
    assert (smooth(maps, SIGMA, inside)[:, ~inside] == 0).all()


def test_values_stay_between_those_of_the_map(maps: torch.Tensor) -> None:
    smoothed = smooth(maps, 5.0)
    assert maps.min() <= smoothed.min()
    assert smoothed.max() <= maps.max()


def test_the_score_is_that_of_the_map_before(tiny_config: Config) -> None:
    torch.manual_seed(0)
    sharp = DiffusionAD(tiny_config.detector).eval()
    smoothed = DiffusionAD(changed(tiny_config, {"map_smoothing": SIGMA}).detector).eval()
    smoothed.load_state_dict(sharp.state_dict())
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    reconstruction = sharp.normalise(images.flip(1))
    with torch.no_grad():
        before, expected = Segmentation(sharp)(images, reconstruction)
        after, score = Segmentation(smoothed)(images, reconstruction)
    assert torch.equal(score, expected)
    torch.testing.assert_close(after, smooth(before, SIGMA))


@pytest.mark.parametrize("sigma", [-1.0, 9.0])
def test_a_width_that_makes_no_sense_is_refused(tiny_config: Config, sigma: float) -> None:
    with pytest.raises(ConfigError, match=r"map_smoothing .* must lie in \[0, size / 8 = 8\]"):
        changed(tiny_config, {"map_smoothing": sigma})
