"""Anomalies of a whole component: it is missing, turned, mirrored or elsewhere.

A component is what stands out from its surroundings as one piece: a printed mark, a
hole, a soldered part. It is cut out along its own outline, the surface around it is
drawn on over the gap, and it is put back the wrong way or not at all. No blob or
texture looks like that, and only what knows the whole part can tell (Sec. 4.2 of
arXiv:2303.08730v4 has norm guidance for it). In Eq. 12 that is A = the image so
changed, beta = 0 and M the places where the component is or should be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diffusionad_training.synthesis.relocation import looks_different

SURROUNDINGS = (0.03, 0.06, 0.12)  # standard deviation, share of the side: what a part is held by
STANDS_OUT = 18.0  # grey levels, at least, from its surroundings
AREAS = (0.0008, 0.08)  # of a component, as shares of the image's area
OF_PRODUCT = 0.3  # at most, where it is known where the product is: the whole of it is no component
OUTLINE = 2.0  # pixels at 256, added all around: its shadow and its soft edge
WAYS = (0.4, 0.25, 0.1, 0.25)  # it is missing, turned, mirrored, or elsewhere
SHIFTS = (0.3, 1.5)  # how far it moves, in its own sides
SEAM = 0.8  # standard deviation of a soft edge, pixels at 256
LEAST_SEEN = 0.25  # of the places marked: where less looks different, nobody could tell
TRIES = 6

Image = NDArray[np.float32]  # (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True)
class Component:
    """A piece of an image: its outline (h, w), soft in [0, 1], in a window of the image."""

    window: tuple[slice, slice]
    outline: NDArray[np.float32]

    @property
    def sides(self) -> NDArray[np.int_]:
        """Height and width of the window."""
        return np.array(self.outline.shape)


def misplace(
    image: NDArray[np.uint8], rng: np.random.Generator, foreground: Mask | None = None
) -> tuple[NDArray[np.uint8], Mask]:
    """Take a component of an image (H, W, 3) away, or put it back wrongly; return it and where.

    With a foreground (H, W) the component lies on it. Where none stands out, or the change
    cannot be seen, the image comes back as it was, with an empty mask.
    """
    original = image.astype(np.float32)
    scale = min(image.shape[:2]) / 256
    for _ in range(TRIES):
        component = _choose(original, scale, rng, foreground)
        if component is None:
            continue
        changed = original.copy()
        place = np.zeros(image.shape[:2], dtype=bool)
        _take_away(changed, component, rng)
        place[component.window] |= component.outline > 0.5
        back = (_not_at_all, _turned, _mirrored, _shifted)[rng.choice(4, p=WAYS)]
        back(changed, original, component, place, rng)
        seen = looks_different(changed, original, scale) & place
        if seen.sum() >= LEAST_SEEN * place.sum():
            return np.clip(np.rint(changed), 0, 255).astype(np.uint8), place
    return image, np.zeros(image.shape[:2], dtype=bool)


def _choose(
    image: Image, scale: float, rng: np.random.Generator, foreground: Mask | None
) -> Component | None:
    """Choose one of the pieces that stand out, None if there is none of a fitting size."""
    size = np.array(image.shape[:2])
    coarse = _pooled(image, 2)
    reach = rng.choice(SURROUNDINGS) * min(coarse.shape[:2])
    around = ndimage.gaussian_filter(coarse, (reach, reach, 0))
    contrast = ndimage.gaussian_filter(np.abs(coarse - around).max(axis=-1), scale / 2)
    stands_out = contrast > max(STANDS_OUT, 0.5 * float(contrast.max()))
    limit = AREAS[1] * stands_out.size
    if foreground is not None:
        on_it = _pooled(foreground[..., None].astype(np.float32), 2)[..., 0] > 0.5
        stands_out &= on_it
        limit = min(limit, OF_PRODUCT * on_it.sum())
    # Piecemeal outlines, as of letters or of a ring, are one component.
    joined = ndimage.binary_closing(stands_out, iterations=max(1, round(scale)))
    labels, count = ndimage.label(joined)
    areas = np.bincount(labels.ravel(), minlength=1)[1:]
    fitting = np.flatnonzero((areas >= AREAS[0] * labels.size) & (areas <= limit))
    if count == 0 or len(fitting) == 0:
        return None
    number = int(fitting[rng.integers(len(fitting))])
    place = ndimage.find_objects(labels, max_label=number + 1)[number]
    piece = ndimage.binary_fill_holes(labels[place] == number + 1)
    return _outlined(np.kron(piece, np.ones((2, 2), bool)), [2 * cut.start for cut in place], size)


def _outlined(piece: Mask, corner: list[int], size: NDArray[np.int_]) -> Component:
    """Give a piece its outline, in a window with room to fade out."""
    scale = min(size) / 256
    margin = int(np.ceil((OUTLINE + 3 * SEAM) * scale))
    grown = ndimage.binary_dilation(
        np.pad(piece, margin), iterations=max(1, round(OUTLINE * scale))
    )
    soft = ndimage.gaussian_filter(grown.astype(np.float32), SEAM * scale)
    first = np.array(corner) - margin
    low = np.maximum(-first, 0)
    high = np.minimum(soft.shape, size - first)
    window = tuple(slice(int(f + a), int(f + b)) for f, a, b in zip(first, low, high, strict=True))
    return Component((window[0], window[1]), soft[low[0] : high[0], low[1] : high[1]])


def _pooled(image: Image, k: int) -> Image:
    """Average blocks of k x k pixels; what is left over at the end is dropped."""
    height, width = (side // k * k for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // k, k, width // k, k, -1)
    pooled: Image = blocks.mean(axis=(1, 3))
    return pooled


def _take_away(image: Image, component: Component, rng: np.random.Generator) -> None:
    """Draw the surface around a component on over its place, in `image`."""
    reach = int(max(8, component.sides.max() // 3))
    room = tuple(
        slice(max(0, cut.start - 2 * reach), cut.stop + 2 * reach) for cut in component.window
    )
    gap = np.zeros(image.shape[:2], dtype=np.float32)
    gap[component.window] = component.outline
    around, gap = image[room], gap[room]
    kept = (gap < 0.01).astype(np.float32)[..., None]
    # Normalised convolution, on a coarse grid, for what comes of it is smooth. What lies near
    # counts most; from far away there is some at least.
    step = max(1, reach // 4)
    padding = [(0, -side % step) for side in kept.shape[:2]] + [(0, 0)]
    colours, weights = (_pooled(np.pad(each, padding), step) for each in (around * kept, kept))
    drawn, weight = np.zeros_like(colours), np.full_like(weights, 1e-6)
    for sigma, share in ((4.0, 1e-3), (2.0, 1e-1), (1.0, 1.0)):
        drawn += share * ndimage.gaussian_filter(colours, (sigma, sigma, 0))
        weight += share * ndimage.gaussian_filter(weights, (sigma, sigma, 0))
    smooth = ndimage.zoom(drawn / weight, (step, step, 1), order=1, mode="nearest", grid_mode=True)[
        : gap.shape[0], : gap.shape[1]
    ]
    grain = around - ndimage.gaussian_filter(around, (1, 1, 0))
    spread = float((grain * kept).std())
    smooth += rng.normal(0, spread, (*gap.shape, 1)).astype(np.float32)
    image[room] = around + gap[..., None] * (smooth - around)


def _put(
    onto: Image, piece: Image, outline: NDArray[np.float32], corner: NDArray[np.int_], place: Mask
) -> None:
    """Lay a piece (h, w, 3) on an image, its upper left corner there; cut what sticks out."""
    top, left = np.maximum(-corner, 0)
    bottom, right = np.minimum(outline.shape, np.array(onto.shape[:2]) - corner)
    if bottom <= top or right <= left:
        return
    here = (slice(corner[0] + top, corner[0] + bottom), slice(corner[1] + left, corner[1] + right))
    outline = outline[top:bottom, left:right]
    onto[here] += outline[..., None] * (piece[top:bottom, left:right] - onto[here])
    place[here] |= outline > 0.5


def _corner(component: Component) -> NDArray[np.int_]:
    return np.array([cut.start for cut in component.window])


def _not_at_all(
    onto: Image, original: Image, component: Component, place: Mask, rng: np.random.Generator
) -> None:
    """It is missing."""


def _turned(
    onto: Image, original: Image, component: Component, place: Mask, rng: np.random.Generator
) -> None:
    """About its middle: on its head, by a right angle, or askew."""
    angle = rng.choice((90.0, 180.0, 270.0, rng.uniform(12, 60), -rng.uniform(12, 60)))
    piece, outline = original[component.window], component.outline
    turned = np.clip(ndimage.rotate(outline, angle, order=1), 0, 1)
    picture = ndimage.rotate(piece, angle, order=1, mode="nearest")
    corner = _corner(component) + (component.sides - turned.shape) // 2
    _put(onto, picture, turned, corner, place)


def _mirrored(
    onto: Image, original: Image, component: Component, place: Mask, rng: np.random.Generator
) -> None:
    axis = int(rng.integers(2))
    piece = np.flip(original[component.window], axis)
    _put(onto, piece, np.flip(component.outline, axis), _corner(component), place)


def _shifted(
    onto: Image, original: Image, component: Component, place: Mask, rng: np.random.Generator
) -> None:
    """Somewhere near, but not where it belongs."""
    heading = rng.uniform(0, 2 * np.pi)
    way = np.array((np.sin(heading), np.cos(heading))) * rng.uniform(*SHIFTS) * component.sides
    corner = _corner(component) + np.rint(way).astype(int)
    _put(onto, original[component.window], component.outline, corner, place)
