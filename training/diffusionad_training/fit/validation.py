"""Judge a model during training, without defects and without the test set.

Held-out good images, each also with a synthetic anomaly of a kind that is not
trained on: pieces of the image bent out of shape. A network that has only
learnt what its own anomalies look like does not see these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusionad_training.config import SynthesisConfig
from diffusionad_training.evaluation.metrics import PixelMetrics, image_auroc
from diffusionad_training.evaluation.scorers import BATCH, TorchScorer
from diffusionad_training.method.model import DiffusionAD
from diffusionad_training.synthesis.anomalies import AnomalySynthesiser

MAX_IMAGES = 24  # good ones; as many again with an anomaly

KINDS = SynthesisConfig(
    texture_share=0,
    self_share=0,
    warp_share=1,
    perlin_share=0.5,
    stroke_share=0.5,
    opacity=(0.0, 0.2),
    within_part=True,
)


@dataclass(frozen=True)
class Validation:
    """How well a model finds the anomalies, in [0, 1]."""

    image_auroc: float
    pixel_average_precision: float

    @property
    def score(self) -> float:
        """What models are selected by: finding parts and finding places count alike."""
        return (self.image_auroc + self.pixel_average_precision) / 2


class ValidationSet:
    """Made once from held-out good images (N, S, S, 3) uint8, the same for every model."""

    def __init__(
        self, held_out: NDArray[np.uint8], seed: int, foregrounds: NDArray[np.bool_] | None
    ) -> None:
        good = held_out[:MAX_IMAGES]
        synthesiser = AnomalySynthesiser(KINDS, textures=None)
        made = [
            synthesiser.synthesise(
                image,
                np.random.default_rng([seed, index]),
                None if foregrounds is None else foregrounds[index],
            )
            for index, image in enumerate(good)
        ]
        empty = np.zeros(good.shape[:3], dtype=bool)
        self._images = np.concatenate([good, np.stack([one.image for one in made])])
        self._masks = np.concatenate([empty, np.stack([one.mask > 0 for one in made])])

    def judge(self, model: DiffusionAD) -> Validation:
        """Score every image; the model is left in the mode it was in."""
        was_training = model.training
        scorer = TorchScorer(model)
        pixels = PixelMetrics()
        scores: list[float] = []
        for start in range(0, len(self._images), BATCH):
            masks = self._masks[start : start + BATCH]
            scored = scorer.score_arrays(self._images[start : start + BATCH])
            for one, mask in zip(scored, masks, strict=True):
                scores.append(one.score)
                pixels.update(one.anomaly_map, mask)
        model.train(was_training)
        auroc = image_auroc(scores, [bool(mask.any()) for mask in self._masks])
        precision = pixels.average_precision
        assert auroc is not None  # there are images of both kinds
        assert precision is not None
        return Validation(auroc, precision)
