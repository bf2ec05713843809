"""Synthetic anomalies of whole components."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffusionad_training.synthesis.components import misplace

seeds = st.integers(0, 2**32 - 1)


def board(*, grain: float = 2.0) -> NDArray[np.uint8]:
    """An even plate with an arrow on it, which has a right way up."""
    image = np.random.default_rng(0).normal(150, grain, (256, 256, 1)).repeat(3, axis=2)
    image[100:108, 90:140] = 40
    image[92:116, 132:140] = 40
    return np.clip(image, 0, 255).astype(np.uint8)


def arrow() -> NDArray[np.bool_]:
    place = np.zeros((256, 256), bool)
    place[92:116, 90:140] = True
    return place


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_what_is_marked_is_where_the_component_is_or_should_be(seed: int) -> None:
    image = board()
    changed, mask = misplace(image, np.random.default_rng(seed))
    assert mask.any()
    difference = np.abs(changed.astype(int) - image).mean(axis=-1)
    assert difference[~mask].max() < 60  # an outline's soft edge at most
    assert (difference[~mask] > 20).mean() < 0.002
    assert (mask & arrow()).sum() > 0.5 * 50 * 8  # where it was is marked in any case


def test_it_is_missing_or_elsewhere_and_the_plate_goes_on_beneath() -> None:
    missing, elsewhere = 0, 0
    for seed in range(40):
        changed, _ = misplace(board(), np.random.default_rng(seed))
        dark = changed.max(axis=-1) < 90
        missing += not dark.any()
        elsewhere += bool(dark[~arrow()].any())
        gone = changed[102:106, 95:125][~dark[102:106, 95:125]]
        if len(gone):
            assert abs(float(gone.mean()) - 150) < 12
    assert missing >= 8
    assert elsewhere >= 8


@pytest.mark.parametrize("level", [0, 120, 255])
def test_an_even_surface_has_no_component_and_stays_as_it_is(level: int) -> None:
    image = np.full((128, 128, 3), level, np.uint8)
    changed, mask = misplace(image, np.random.default_rng(0))
    assert not mask.any()
    assert (changed == image).all()


def test_a_component_lies_on_the_product_and_is_not_the_whole_of_it() -> None:
    image = board()
    image[40:60, 40:60] = 20
    product = np.zeros((256, 256), bool)
    product[80:130, 80:150] = True
    for seed in range(20):
        _, mask = misplace(image, np.random.default_rng(seed), product)
        assert not mask[45:55, 45:55].any() or mask[100:108, 90:140].any()
    alone = np.zeros((256, 256), bool)
    alone[98:110, 88:142] = True
    _, mask = misplace(board(), np.random.default_rng(0), alone)
    assert not mask.any()


@given(seeds, st.integers(24, 90), st.integers(24, 90))
@settings(max_examples=20, deadline=None)
def test_windows_of_any_shape_do(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    changed, mask = misplace(image, rng)
    assert changed.shape == image.shape
    assert mask.shape == image.shape[:2]
