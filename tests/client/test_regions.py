"""The connected areas of a map: the same as scipy's, in any map."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from diffusionad_client.sdk.regions import Region, find_regions, scaled

Map = NDArray[np.float32]


def by_scipy(values: Map, area: NDArray[np.bool_]) -> set[tuple[Any, ...]]:
    labels, count = ndimage.label(area, np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    numbers = range(1, count + 1)
    areas = ndimage.sum_labels(area, labels, numbers)
    peaks = ndimage.maximum(values, labels, numbers)
    means = ndimage.mean(values.astype(np.float64), labels, numbers)
    return {
        (rows.start, columns.start, rows.stop, columns.stop, size, peak, round(mean, 9))
        for (rows, columns), size, peak, mean in zip(boxes, areas, peaks, means, strict=True)
    }


def as_found(found: tuple[Region, ...]) -> set[tuple[Any, ...]]:
    return {
        (r.top, r.left, r.bottom, r.right, r.area, np.float32(r.peak), round(r.mean, 9))
        for r in found
    }


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.1, 0.3, 0.45, 0.6, 0.9, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_regions_of_any_map_are_those_that_scipy_finds(
    height: int, width: int, share: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    values = draw.random((height, width), dtype=np.float32)
    area = draw.random((height, width)) < share
    assert as_found(find_regions(values, area)) == by_scipy(values, area)


def spiral(size: int) -> NDArray[np.bool_]:
    """One line without an end in sight: each of its runs touches only the next ones."""
    area = np.zeros((size, size), np.bool_)
    top, left, bottom, right = 0, 0, size - 1, size - 1
    while top <= bottom and left <= right:
        area[top, left : right + 1] = True
        area[top : bottom + 1, right] = True
        area[bottom, left : right + 1] = True
        area[top + 2 : bottom + 1, left] = True
        if left + 1 < size and top + 2 <= bottom:
            area[top + 2, left : left + 2] = True
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    return area


def comb(size: int) -> NDArray[np.bool_]:
    """Teeth that only the last row joins."""
    area = np.zeros((size, size), np.bool_)
    area[:, ::2] = True
    area[-1] = True
    return area


def chequered(size: int) -> NDArray[np.bool_]:
    return np.indices((size, size)).sum(axis=0) % 2 == 0


@pytest.mark.parametrize("shape", [spiral, comb, chequered])
@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_shapes_that_join_late_are_one_region(shape: Any, turn: int) -> None:
    area = np.rot90(shape(65), turn)
    values = np.linspace(0, 1, area.size, dtype=np.float32).reshape(area.shape)
    found = find_regions(values, area)
    assert len(found) == 1
    assert as_found(found) == by_scipy(values, area)


def test_corners_join_and_the_ends_of_a_row_do_not() -> None:
    area = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 1]], np.bool_)
    found = find_regions(np.ones((3, 4), np.float32), area)
    assert sorted(region.area for region in found) == [1, 1, 3]


def test_a_region_says_where_it_is_and_how_bad() -> None:
    values = np.zeros((10, 12), np.float32)
    values[2:4, 5:8] = 0.5
    values[3, 6] = 0.75
    (region,) = find_regions(values, values >= 0.5)
    assert (region.top, region.left, region.bottom, region.right) == (2, 5, 4, 8)
    assert (region.height, region.width, region.area) == (2, 3, 6)
    assert region.peak == 0.75
    assert region.mean == pytest.approx(3.25 / 6)


def test_the_worst_region_comes_first() -> None:
    values = np.array([[0.6, 0, 0.9, 0, 0.9, 0.9]], np.float32)
    found = find_regions(values, values >= 0.5)
    assert [(region.left, region.area) for region in found] == [(4, 2), (2, 1), (0, 1)]


def test_a_map_without_defects_has_no_region() -> None:
    assert find_regions(np.zeros((5, 5), np.float32), np.zeros((5, 5), np.bool_)) == ()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_stretched_box_covers_what_it_covered_and_stays_inside(data: st.DataObject) -> None:
    sides = st.integers(1, 5000)
    of, to = data.draw(st.tuples(sides, sides)), data.draw(st.tuples(sides, sides))
    top, left = (data.draw(st.integers(0, side - 1)) for side in of)
    bottom, right = data.draw(st.integers(top + 1, of[0])), data.draw(st.integers(left + 1, of[1]))
    region = Region(top=top, left=left, bottom=bottom, right=right, area=1, peak=1.0, mean=1.0)
    new = scaled(region, of, to)
    assert 0 <= new.top < new.bottom <= to[0]
    assert 0 <= new.left < new.right <= to[1]
    assert new.top * of[0] <= top * to[0] < bottom * to[0] <= new.bottom * of[0]
    assert new.left * of[1] <= left * to[1] < right * to[1] <= new.right * of[1]
    assert new.area >= 1


def test_even_a_map_of_noise_takes_no_seconds() -> None:
    """A million pixels in a quarter million runs; the usual map has a few dozen of them."""
    values = np.random.default_rng(0).random((1024, 1024), dtype=np.float32)
    started = time.process_time()
    assert find_regions(values, values >= 0.6)
    assert time.process_time() - started < 5
