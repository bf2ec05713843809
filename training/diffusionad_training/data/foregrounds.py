"""Where the product is in the picture: F of Sec. 4.4, on which synthetic anomalies lie.

Without it most of them fall on the empty background, and that is what the
network learns to watch. Masks come from a folder, or are estimated from the
pictures themselves: a product on a plain ground stands out from the colour of
the picture's border. Where it does not (a texture, a product cut off by the
border) there is no foreground, and anomalies may lie anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diffusionad_client import masks
from diffusionad_training.data.images import read_mask
from diffusionad_training.data.mask_files import MaskFiles
from diffusionad_training.data.oddities import Oddities
from diffusionad_training.errors import DataError

Masks = NDArray[np.bool_]  # (N, S, S)
Foreground = Literal["auto", "none"]  # or a folder of masks

BORDER = 0.02  # width of the frame that shows the ground, as a share of the side
MAX_BORDER_SHARE = 0.1  # of the frame may belong to the product
SHARES = (0.01, 0.9)  # of the picture that a product may cover
MIN_PIECE = 0.002  # of the picture; smaller pieces are dirt
MARGIN = 0.015  # added around the product, so that its edge can be defective too
MIN_CONTRAST = 16.0  # grey levels between product and ground, at the least
MIN_FOUND = 0.9  # of the pictures must show a product, or none is believed to

_BINS = 256


def estimate(images: NDArray[np.uint8]) -> Masks | None:
    """Tell product from ground in pictures (N, S, S, 3) of one kind of part.

    None if they do not show a product on a plain ground. A single picture in
    which none is found counts as product throughout.
    """
    estimated = list(map(_estimate_one, images))
    found = [mask for mask in estimated if mask is not None]
    if len(found) < MIN_FOUND * len(images):
        return None
    everywhere = np.ones(images.shape[1:3], dtype=bool)
    stacked: Masks = np.stack([everywhere if mask is None else mask for mask in estimated])
    return stacked


def load(
    folder: Path,
    images: Sequence[Path],
    root: Path,
    size: int,
    report: Callable[[str], None] = lambda line: None,
) -> Masks:
    """Load the mask of each image, named like it below `folder`; anything but 0 is product.

    A mask has the image's path relative to `root`, or its file name, with any
    image suffix. What is odd about masks is told through `report`. Raises
    `DataError` if images have no mask, or an empty one.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of foreground masks")
    files = MaskFiles(folder)
    names = [path.relative_to(root) for path in images]
    paths = [files.find(name, Path(name.name)) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise DataError(
            f"{folder}: no foreground mask for {len(missing)} of {len(names)} images, the first "
            f"{missing[0].as_posix()!r}; add them, or let them be estimated: --foreground auto"
        )
    oddities = Oddities()
    loaded = []
    empty = []
    for image, path in zip(images, filter(None, paths), strict=True):
        mask = read_mask(path)
        oddities.look_at(mask, path.relative_to(folder).as_posix(), of=image)
        loaded.append(masks.resize(mask, size))
        if not mask.any():
            empty.append(image.relative_to(root).as_posix())
    if empty:
        raise DataError(
            f"{folder}: the foreground mask of {empty[0]!r} is empty, and {len(empty)} of "
            f"{len(names)} are; mark the product in them with anything but black"
        )
    for line in oddities.described():
        report(f"foreground {line}")
    stacked: Masks = np.stack(loaded)
    return stacked


def _estimate_one(image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    side = image.shape[0]
    frame = _frame(side)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (1, 1, 0))
    ground = np.median(smooth[frame], axis=0)
    distance = np.linalg.norm(smooth - ground, axis=-1)
    if distance.max() < MIN_CONTRAST:
        return None
    mask = distance > _otsu(distance)
    if mask[frame].mean() > MAX_BORDER_SHARE:
        return None
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask))
    mask = _without_small_pieces(mask)
    share = mask.mean()
    if not SHARES[0] <= share <= SHARES[1] or mask[frame].mean() > MAX_BORDER_SHARE:
        return None
    grown: NDArray[np.bool_] = ndimage.binary_dilation(mask, iterations=round(MARGIN * side))
    return grown


def _frame(side: int) -> NDArray[np.bool_]:
    width = max(1, round(BORDER * side))
    frame = np.ones((side, side), dtype=bool)
    frame[width:-width, width:-width] = False
    return frame


def _otsu(values: NDArray[np.float32]) -> float:
    """Threshold that splits values into two classes of the least variance. Otsu (1979)."""
    counts, edges = np.histogram(values, bins=_BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nanargmax(between)])


def _without_small_pieces(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    large = sizes >= MIN_PIECE * mask.size
    large[0] = False  # the ground
    kept: NDArray[np.bool_] = large[labels]
    return kept
