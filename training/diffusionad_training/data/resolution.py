"""How much detail of the good images the training's size loses, so that `train` can say it.

Of S samples across a picture nothing finer than S / 2 cycles is left. What is finer
in the original is compared with the local contrast of the product there: a share
of the contrast, so that neither bright pictures nor empty backgrounds count more.

    screw 13 %   magnetic tiles 20 %   bottle 9 %   demo plates 9 %      at 256 x 256

A nearest neighbour of features finds the screw's defects far better at 512 than at 256;
bottle and plates score above 99 at 256. NOTABLE was put between these four products, and
others have not shown yet that it lies well. Noise and a texture's grain are fine as well:
the measure says what is lost, not whether it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from diffusionad_client.images import read_pixels, to_rgb
from diffusionad_training.data.foregrounds import Masks

NOTABLE = 0.11  # share of the local contrast; a screw loses 0.13, a bottle 0.09
LARGER = (1.5, 2.0)  # times the side: sizes that may be advised

_ENOUGH = 16  # images
_LOCAL = 8.0  # pixels at 256: contrast is what differs from a blur this wide
_FINEST = 4  # times the size: larger originals are shrunk to it first, as a transform is slow
_MULTIPLE = 32  # of sizes that are advised, as strides need


@dataclass(frozen=True)
class DetailLost:
    """What a size loses, and the first larger one that loses little, if one does."""

    share: float  # of the local contrast, root mean square
    size: int
    larger: int | None = None  # None: nothing to advise
    share_at_larger: float = 0.0

    @property
    def described(self) -> str | None:
        """A sentence for people, or None if nothing notable is lost."""
        if self.share < NOTABLE or self.larger is None:
            return None
        factor = (self.larger / self.size) ** 2
        return (
            f"the good images have detail that {self.size} x {self.size} loses: "
            f"{self.share:.0%} of their local contrast is finer than its pixels "
            f"({self.share_at_larger:.0%} at {self.larger}). If defects are that small, give "
            f"--image-size {self.larger}; training and serving take about {factor:.1f} times as "
            "long"
        )


def detail_lost(paths: Sequence[Path], size: int, masks: Masks | None, *, depth: int) -> DetailLost:
    """Measure what `size` loses of images, at most 16 of them, inside their masks (N, S, S).

    `depth` is that of images whose files do not say it. Raises `ImageError` for
    a file that cannot be read.
    """
    sizes = (size, *(round(size * by / _MULTIPLE) * _MULTIPLE for by in LARGER))
    step = -(-len(paths) // _ENOUGH)
    shares = np.array(
        [
            _shares(
                _grey(paths[place], size, depth), None if masks is None else masks[place], sizes
            )
            for place in range(0, len(paths), step)
        ]
    )
    at = dict(zip(sizes, np.median(shares, axis=0).tolist(), strict=True))
    larger = [one for one in sizes[1:] if one > size and at[one] < at[size] / 2]
    if not larger:
        return DetailLost(at[size], size)
    return DetailLost(at[size], size, larger[0], at[larger[0]])


def _grey(path: Path, size: int, depth: int) -> NDArray[np.float32]:
    """Read an image's brightness, (H, W), at most _FINEST times as large as the size."""
    rgb = to_rgb(read_pixels(path), depth)
    grey: NDArray[np.float32] = rgb.mean(axis=-1, dtype=np.float32)
    height, width = grey.shape
    limit = _FINEST * size
    if max(height, width) > limit:
        picture = Image.fromarray(grey)
        picture = picture.resize((min(width, limit), min(height, limit)), Image.Resampling.BOX)
        grey = np.asarray(picture, dtype=np.float32)
    return grey


def _shares(
    grey: NDArray[np.float32], mask: NDArray[np.bool_] | None, sizes: Sequence[int]
) -> list[float]:
    """For each size, the share of the local contrast inside the mask that is finer than it."""
    height, width = grey.shape
    blurred = ndimage.gaussian_filter(grey, (_LOCAL * height / 256, _LOCAL * width / 256))
    inside = np.ones(grey.shape, dtype=bool)
    if mask is not None and mask.any():
        rows = np.arange(height) * mask.shape[0] // height
        columns = np.arange(width) * mask.shape[1] // width
        inside = mask[np.ix_(rows, columns)]
    if not inside.any():
        inside[:] = True
    contrast = float(np.square(grey - blurred)[inside].mean())
    if contrast == 0:
        return [0.0] * len(sizes)
    spectrum = fft.dctn(grey, norm="ortho")
    shares = []
    for size in sizes:
        finer = spectrum.copy()
        finer[:size, :size] = 0  # coefficient k is k / 2 cycles: what S samples can hold
        lost = fft.idctn(finer, norm="ortho")
        shares.append(float(np.sqrt(np.square(lost)[inside].mean() / contrast)))
    return shares
