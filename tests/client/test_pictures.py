from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client import heat
from diffusionad_client.pages import pictures

GREY = np.full((300, 400, 3), 128, np.uint8)


def disc(size: int = 64, height: float = 0.9) -> NDArray[np.float32]:
    y, x = np.mgrid[:size, :size] - size / 2
    return np.where(x**2 + y**2 < (size / 5) ** 2, height, 0.0).astype(np.float32)


def drawn(anomaly_map: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.uint8]:
    return np.asarray(pictures.without_scale(pictures.heat_map(GREY, anomaly_map, threshold)))


def test_a_heat_map_has_the_shape_of_its_image_and_a_scale_below() -> None:
    picture = pictures.heat_map(GREY, disc(), 0.5)
    assert picture.size == (400, 300 + pictures.SCALE_HEIGHT)
    assert pictures.without_scale(picture).size == (400, 300)


def test_where_nothing_is_wrong_the_image_is_seen_unchanged() -> None:
    np.testing.assert_array_equal(drawn(np.zeros((64, 64), np.float32)), GREY)


def test_a_defect_is_coloured_and_outlined_and_the_rest_is_not() -> None:
    picture = drawn(disc())
    centre, corner = picture[150, 200].astype(int), picture[5, 5]
    assert centre[0] > centre[1] + 60
    assert tuple(corner) == (128, 128, 128)
    assert (picture == 255).all(axis=-1).any()


def test_colours_are_laid_over_by_their_opacity() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    values = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    steps = (values * np.float32(255)).astype(np.uint8)
    colours = heat.colours_of(0.3)[steps]
    opacity = colours[..., 3:] / 255
    exact = image * (1 - opacity) + colours[..., :3] * opacity
    assert np.abs(heat.blend(image, values, 0.3) - exact).max() <= 1.5


def test_a_map_below_the_pixel_threshold_has_no_outline() -> None:
    picture = drawn(disc(height=0.3))
    assert not (picture == 255).all(axis=-1).any()
    assert not (picture == 0).all(axis=-1).any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3000, 4000), (512, 384)), ((32, 64), (256, 128)), ((400, 300), (300, 400))],
)
def test_pictures_are_neither_huge_nor_tiny(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert pictures.picture_size(np.zeros((*shape, 3), np.uint8)) == expected


@pytest.mark.parametrize("shape", [(4000, 20), (20, 4000), (1, 1)])
@pytest.mark.parametrize("threshold", [0.0, 1e-9, 0.5, 1.0])
def test_odd_shapes_and_thresholds_are_drawn_too(shape: tuple[int, int], threshold: float) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    picture = pictures.heat_map(image, disc(), threshold)
    assert picture.size[0] == pictures.picture_size(image)[0]


def test_a_saved_map_keeps_16_bits() -> None:
    values = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    with Image.open(io.BytesIO(pictures.map_png(values))) as saved:
        read = np.asarray(saved).astype(np.float64) / 65535
    np.testing.assert_allclose(read, values, atol=1e-5)
