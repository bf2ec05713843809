"""Training batches: normal images and synthetic anomalies, made in data workers.

Each item is one whole batch, so that its share of anomalies is exact. Item k
depends on the seed and k alone, whichever worker makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from diffusionad_training.config import AugmentationConfig, Config
from diffusionad_training.synthesis.anomalies import Anomaly, AnomalySynthesiser
from diffusionad_training.synthesis.windows import choose_window

_AT_ONCE = 16  # images whose features are computed together
_OF_BATCHES, _OF_EPOCHS = 1, 2  # streams of random numbers that share nothing


class Batch(TypedDict):
    """What a training step takes. Images are RGB uint8, as on the wire, and whole."""

    images: Tensor  # (N, H, W, 3) uint8, anomalies already blended in
    clean: Tensor  # (N, H, W, 3) uint8, the same without the anomalies
    masks: Tensor  # (N, 1, H, W) float, 1 where the anomaly is
    anomalous: Tensor  # (N,) bool
    misplaced: Tensor  # (N,) bool, the anomaly is a whole component
    corners: Tensor  # (N, 2) int64, top and left of the window that is trained on
    side: Tensor  # () int64, of the windows; that of the images where it is all of them
    sources: Tensor  # (N,) int64, which of the training images, or which group of them, each is of


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to where the model is."""
    return Batch(
        images=batch["images"].to(device),
        clean=batch["clean"].to(device),
        masks=batch["masks"].to(device),
        anomalous=batch["anomalous"].to(device),
        misplaced=batch["misplaced"].to(device),
        corners=batch["corners"],  # where tensors are cut is decided by the host
        side=batch["side"],
        sources=batch["sources"].to(device),
    )


@dataclass(frozen=True)
class GoodImages:
    """The good images of a training as they are, in every orientation that they may have."""

    images: NDArray[np.uint8]  # (N, H, W, 3)
    sources: NDArray[np.int64]  # (N,), the group that each belongs to
    augmentation: AugmentationConfig

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pictures (B, 3, H, W) in [0, 1] and their sources (B,)."""
        axes = ((), (0,), (1,), (0, 1)) if self.augmentation.flip else ((),)
        for start in range(0, len(self.images), _AT_ONCE):
            some = self.images[start : start + _AT_ONCE]
            sources = torch.from_numpy(self.sources[start : start + _AT_ONCE])
            for turned in axes:
                pictures = np.flip(some, [1 + axis for axis in turned]).copy()
                yield torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255, sources


class TrainingBatches(Dataset[Batch]):
    """`count` seeded batches over good images (N, H, W, 3) uint8 held in memory.

    `foregrounds` (N, H, W), if given, is where the product is in each image, `sources` (N,) the
    group that it belongs to, itself otherwise.
    The first `crop_share` of them are made of windows of the images, where the
    config says so; `progress` tells a training's that ends by time how much of
    it is over, and must live in shared memory.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        textures: NDArray[np.uint8] | None,
        config: Config,
        *,
        count: int,
        seed: int,
        foregrounds: NDArray[np.bool_] | None = None,
        sources: NDArray[np.int64] | None = None,
        progress: Tensor | None = None,
    ) -> None:
        self._images = images
        self._sources = np.arange(len(images)) if sources is None else sources
        self._foregrounds = foregrounds
        self._synthesiser = AnomalySynthesiser(config.training.synthesis, textures)
        self._augmentation = config.training.augmentation
        self._normal = config.training.optimisation.normal_per_batch
        self._synthetic = config.training.optimisation.synthetic_per_batch
        self._at_random = config.training.optimisation.synthetic_at_random
        self._crop_side = config.training.optimisation.crop_side
        self._crop_share = config.training.optimisation.crop_share
        self._progress = progress
        self._count = count
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self._count:
            raise IndexError(index)
        rng = np.random.default_rng([self._seed, _OF_BATCHES, index])
        total = self._normal + self._synthetic
        cropped = self._is_cropped(index)
        side = self._crop_side if cropped else self._images.shape[1]
        anomalous = np.arange(total) >= self._normal
        if self._at_random:
            anomalous = rng.random(total) < self._synthetic / total
        images, clean, masks, misplaced, corners = [], [], [], [], []
        drawn = self._draw(index, total)
        for chosen, is_anomalous in zip(drawn, anomalous, strict=True):
            turn = orientation(self._augmentation, rng)
            normal = jitter(turn(self._images[chosen]), self._augmentation, rng)
            foreground = None if self._foregrounds is None else turn(self._foregrounds[chosen])
            made = Anomaly(normal, np.zeros(normal.shape[:2], dtype=np.float32), misplaced=False)
            if is_anomalous:
                made = self._synthesiser.synthesise(normal, rng, foreground)
            corner = (0, 0)
            if cropped:
                # After the synthesis: in a window, anomalies are as large as in a whole image.
                place = made.mask > 0 if is_anomalous else foreground
                height, width = normal.shape[:2]
                window = choose_window((height, width), (side, side), rng, place)
                corner = window[0].start, window[1].start
            images.append(made.image)
            clean.append(normal)
            masks.append(made.mask)
            misplaced.append(made.misplaced)
            corners.append(corner)
        return Batch(
            images=torch.from_numpy(np.stack(images)),
            clean=torch.from_numpy(np.stack(clean)),
            masks=torch.from_numpy(np.stack(masks)[:, np.newaxis]),
            anomalous=torch.from_numpy(anomalous),
            misplaced=torch.tensor(misplaced),
            corners=torch.tensor(corners),
            side=torch.tensor(side),
            sources=torch.from_numpy(self._sources[drawn]),
        )

    def _is_cropped(self, index: int) -> bool:
        if self._crop_side == 0 or (
            self._progress is not None and float(self._progress) >= self._crop_share
        ):
            return False
        return (index + 1) / self._count <= self._crop_share  # the last one never is

    def _draw(self, index: int, total: int) -> list[int]:
        """Walk through seeded shuffles of the images, so that each is seen equally often."""
        chosen = []
        for position in range(index * total, (index + 1) * total):
            epoch, place = divmod(position, len(self._images))
            order = np.random.default_rng([self._seed, _OF_EPOCHS, epoch]).permutation(
                len(self._images)
            )
            chosen.append(int(order[place]))
        return chosen


Turn = Callable[[NDArray[Any]], NDArray[Any]]


def orientation(config: AugmentationConfig, rng: np.random.Generator) -> Turn:
    """Choose how a part lies, if it has no right way up: what turns its image and its masks."""
    axes = [axis for axis in (0, 1) if config.flip and rng.random() < 0.5]
    return lambda array: np.flip(array, axes)


def jitter(
    image: NDArray[np.uint8], config: AugmentationConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Vary the lighting of a good part: (H, W, 3) uint8."""
    shift = 255 * rng.uniform(-config.brightness, config.brightness)
    gain = 1 + rng.uniform(-config.contrast, config.contrast)
    levels = np.arange(256, dtype=np.float64)
    table = np.clip(np.rint((levels - 127.5) * gain + 127.5 + shift), 0, 255).astype(np.uint8)
    jittered: NDArray[np.uint8] = table[image]
    return jittered
