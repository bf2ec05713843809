"""Structural anomalies: features that are missing, doubled or out of place.

Pieces of the image are laid over other places of it, as in CutPaste (Li et
al., 2021), but preferably over features, from where they fit best, with soft
seams and matched brightness: what gives an anomaly away is the structure and
not the cut. In Eq. 12 that is A = the image moved, beta = 0 and a soft M. Only
what really looks different is marked: a piece of plain surface on plain
surface is no defect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

PIECES = (1, 3)  # laid over one image
SIDES = (0.06, 0.25)  # of a piece, as a share of the image's side
SEAM = 1.5  # standard deviation of the soft edge, pixels at 256
TARGETS = 2  # places to choose from: the one with more structure is covered
SOURCES = 8  # places to choose from: the one that fits best along the seam is taken
VISIBLE = 16.0  # grey levels, after smoothing over a few pixels
MIN_VISIBLE_PIXELS = 120  # at 256 x 256; less is a texture's own unevenness
TRIES = 20

Image = NDArray[np.float32]  # (H, W, 3)


def relocate(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    foreground: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Move pieces of an image (H, W, 3) until something looks different; return it and where.

    With a foreground (H, W) most of that must lie on it. On an image so even
    that nothing can, it comes back as it was, with an empty mask.
    """
    scale = min(image.shape[:2]) / 256
    original = image.astype(np.float32)
    for _ in range(TRIES):
        moved = original.copy()
        for _ in range(rng.integers(PIECES[0], PIECES[1] + 1)):
            _move_piece(moved, original, scale, rng)
        mask = looks_different(moved, original, scale)
        if foreground is not None and 2 * (mask & foreground).sum() < mask.sum():
            continue
        if mask.sum() >= MIN_VISIBLE_PIXELS * scale**2:
            return np.clip(np.rint(moved), 0, 255).astype(np.uint8), mask
    return image, np.zeros(image.shape[:2], dtype=bool)


def _move_piece(onto: Image, original: Image, scale: float, rng: np.random.Generator) -> None:
    """Lay one piece of `original` somewhere on `onto`, in place."""
    size = np.array(original.shape[:2])
    sides = np.maximum(4, size * rng.uniform(*SIDES, size=2)).astype(int)
    margin = int(np.ceil(3 * SEAM * scale))  # the seam fades out within it
    box = sides + 2 * margin
    if (box >= size).any():
        return

    def windows(count: int) -> list[tuple[slice, slice]]:
        corners = rng.integers(0, size - box, size=(count, 2))
        return [(slice(y, y + box[0]), slice(x, x + box[1])) for y, x in corners]

    target = max(windows(TARGETS), key=lambda window: float(original[window].std()))
    ground = onto[target]
    alpha = _soft_shape(sides, margin, scale, round_=rng.random() < 0.5)[..., np.newaxis]
    seam = alpha * (1 - alpha)
    seam /= max(float(seam.sum()), 1e-6)

    def fitted(window: tuple[slice, slice]) -> Image:
        # Matched along the seam, so that uneven lighting does not draw the cut.
        piece: Image = original[window] + ((ground - original[window]) * seam).sum((0, 1))
        return piece

    def misfit(piece: Image) -> float:
        return float((np.abs(ground - piece) * seam).sum())

    piece = min((fitted(window) for window in windows(SOURCES)), key=misfit)
    ground += alpha * (piece - ground)


def _soft_shape(
    sides: NDArray[np.int_], margin: int, scale: float, *, round_: bool
) -> NDArray[np.float32]:
    """An ellipse or rectangle of the given sides with a soft edge, in a box with a margin."""
    y, x = np.ogrid[-1 : 1 : sides[0] * 1j, -1 : 1 : sides[1] * 1j]
    inside = (y * y + x * x <= 1) if round_ else np.ones(tuple(sides), dtype=bool)
    padded = np.pad(inside.astype(np.float32), margin)
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(padded, SEAM * scale)
    return blurred


def looks_different(moved: Image, original: Image, scale: float) -> NDArray[np.bool_]:
    """Where two images look different, small gaps closed."""
    difference = np.abs(moved - original).mean(axis=-1)
    seen = ndimage.gaussian_filter(difference, 1.2 * scale) > VISIBLE
    closed: NDArray[np.bool_] = ndimage.binary_closing(seen, iterations=max(1, round(2 * scale)))
    return closed
