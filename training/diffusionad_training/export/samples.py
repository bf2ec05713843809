"""The images that an export is tried on: held-out good ones, and some of them made anomalous."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.artifacts.bundle import AgreementSet, References
from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.artifacts.roi import Mask
from diffusionad_training.config import SynthesisConfig
from diffusionad_training.errors import ExportError
from diffusionad_training.evaluation.scorers import Scored
from diffusionad_training.synthesis.anomalies import AnomalySynthesiser

GOOD_REFERENCES = 4  # held-out good images; as many again get a synthetic anomaly

Images = NDArray[np.uint8]  # (N, S, S, 3)


@dataclass(frozen=True)
class Samples:
    """Held-out good images, and those chosen among them with a synthetic anomaly."""

    good: Images
    chosen: NDArray[np.intp]  # (M,), of the good ones
    altered: Images  # (M, S, S, 3)


@dataclass(frozen=True)
class Answers:
    """What one model in one precision says of samples, in their order."""

    good: list[Scored]
    altered: list[Scored]


def draw_samples(good: Images, count: int, *, roi: Mask | None, first_seed: int = 0) -> Samples:
    """Alter at most `count` of the images, spread evenly over them."""
    chosen = np.linspace(0, len(good) - 1, min(count, len(good))).astype(np.intp)
    synthesiser = AnomalySynthesiser(
        SynthesisConfig(texture_share=0, self_share=0.5, procedural_share=0.5), textures=None
    )
    altered = [
        _alter(synthesiser, good[index], roi, np.random.default_rng(first_seed + number))
        for number, index in enumerate(chosen)
    ]
    return Samples(good, chosen, np.stack(altered))


def answer(samples: Samples, score: Callable[[Images], Iterable[Scored]]) -> Answers:
    """Put all samples to a model."""
    return Answers(list(score(samples.good)), list(score(samples.altered)))


def references(samples: Samples, answers: Answers) -> References:
    """Take a few of either kind, so that high scores are compared too."""
    good, altered = samples.chosen[:GOOD_REFERENCES], slice(GOOD_REFERENCES)
    answered = [*(answers.good[index] for index in good), *answers.altered[altered]]
    return References(
        images=np.concatenate([samples.good[good], samples.altered[altered]]),
        scores=np.asarray([one.score for one in answered], dtype=np.float32),
        anomaly_maps=np.stack([one.anomaly_map for one in answered]),
    )


def agreement_set(samples: Samples, answers: Answers, thresholds: Thresholds) -> AgreementSet:
    """Take the chosen images, good and altered, with the scores of float32."""
    return AgreementSet(
        images=np.concatenate([samples.good[samples.chosen], samples.altered]),
        anomalous=np.arange(2 * len(samples.chosen)) >= len(samples.chosen),
        scores=np.asarray(agreement_scores(samples, answers), dtype=np.float32),
        thresholds=thresholds,
    )


def agreement_scores(samples: Samples, answers: Answers) -> list[float]:
    """Give the scores of the agreement set's images, in its order."""
    good = [answers.good[index].score for index in samples.chosen]
    return [*good, *(one.score for one in answers.altered)]


def _alter(
    synthesiser: AnomalySynthesiser,
    image: NDArray[np.uint8],
    roi: Mask | None,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Add an anomaly, inside the region of interest if there is one."""
    try:
        return synthesiser.synthesise(image, rng, foreground=roi).image
    except RuntimeError as exc:  # no mask that it drew met the region
        raise ExportError(
            f"no synthetic anomaly fits into the region of interest: {exc}; draw it larger"
        ) from exc
