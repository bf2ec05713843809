"""The connected areas of a map that belong to defects, with numpy alone.

Pixels that touch, also at their corners, are one area. Rows are cut into runs,
and runs of neighbouring rows that touch are joined: work grows with the number
of runs, not of pixels, and no step loops over either in Python.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_Indices = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A connected area of pixels at or above the pixel threshold.

    Rows count from the top, columns from the left, both from 0; `bottom` and
    `right` are the first beyond it, so that `picture[top:bottom, left:right]`
    is its box. `Inspection.regions` says of which picture the pixels are.
    """

    top: int
    left: int
    bottom: int
    right: int
    area: int  # in pixels
    peak: float  # the highest and the mean value of the map in it
    mean: float

    @property
    def height(self) -> int:
        """Rows of the box."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns of the box."""
        return self.right - self.left


def scaled(region: Region, of: tuple[int, int], to: tuple[int, int]) -> Region:
    """Give the same region after a picture of a height and width was stretched to others.

    Its box is rounded outwards, its area to whole pixels, at least 1.
    """
    rows, columns = of
    height, width = to
    return replace(
        region,
        top=region.top * height // rows,
        left=region.left * width // columns,
        bottom=-(-region.bottom * height // rows),
        right=-(-region.right * width // columns),
        area=max(round(region.area * height * width / (rows * columns)), 1),
    )


def find_regions(values: NDArray[np.float32], area: NDArray[np.bool_]) -> tuple[Region, ...]:
    """Find the connected parts of an `area` (H, W) of map values (H, W), the worst first.

    That is the one with the highest peak; of equal ones the largest.
    """
    rows, starts, ends = _runs(area)
    if not rows.size:
        return ()
    lengths = ends - starts
    # Sorted by region, so that the runs of each lie together.
    roots = _joined(len(rows), *_touching(rows, starts, ends, area.shape[1]))
    order = np.argsort(roots, kind="stable")
    firsts = np.flatnonzero(np.diff(roots[order], prepend=-1))

    inside = values[area].astype(np.float64)  # run after run, as they are counted
    places = np.cumsum(lengths) - lengths
    peaks = np.maximum.reduceat(inside, places)
    sums = np.add.reduceat(inside, places)

    areas = np.add.reduceat(lengths[order], firsts)
    columns = {
        "top": np.minimum.reduceat(rows[order], firsts),
        "left": np.minimum.reduceat(starts[order], firsts),
        "bottom": np.maximum.reduceat(rows[order], firsts) + 1,
        "right": np.maximum.reduceat(ends[order], firsts),
        "area": areas,
        "peak": np.maximum.reduceat(peaks[order], firsts),
        "mean": np.add.reduceat(sums[order], firsts) / areas,
    }
    of_each = zip(*(column.tolist() for column in columns.values()), strict=True)
    found = [Region(**dict(zip(columns, numbers, strict=True))) for numbers in of_each]
    return tuple(sorted(found, key=lambda region: (-region.peak, -region.area)))


def _runs(area: NDArray[np.bool_]) -> tuple[_Indices, _Indices, _Indices]:
    """Give the row, the first column and the column behind of each run, row by row."""
    height, width = area.shape
    framed = np.zeros((height, width + 2), np.int8)
    framed[:, 1:-1] = area
    steps = np.diff(framed, axis=1)
    rows, starts = np.nonzero(steps == 1)
    return rows, starts, np.nonzero(steps == -1)[1]


def _touching(
    rows: _Indices, starts: _Indices, ends: _Indices, width: int
) -> tuple[_Indices, _Indices]:
    """Give the pairs of runs of neighbouring rows that share a side or a corner."""
    # One number orders runs by row, then by column: those that touch a run from below are
    # neighbours in that order, from the first that does not end before it on.
    row = width + 2
    below = (rows + 1) * row
    first = np.searchsorted(rows * row + ends, below + starts, side="left")
    behind = np.searchsorted(rows * row + starts, below + ends, side="right")
    counts = behind - first
    upper = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, first[upper] + within


def _joined(count: int, one: _Indices, other: _Indices) -> _Indices:
    """Name for each of `count` runs the first one that it is joined to, over any number of pairs.

    All pairs at once: a run's root is laid under the lower root that it meets, until none does.
    """
    roots = np.arange(count)
    while True:
        low, high = roots[one], roots[other]
        apart = low != high
        if not apart.any():
            return roots
        one, other, low, high = one[apart], other[apart], low[apart], high[apart]
        np.minimum.at(roots, np.maximum(low, high), np.minimum(low, high))
        while not np.array_equal(roots, above := roots[roots]):
            roots = above
