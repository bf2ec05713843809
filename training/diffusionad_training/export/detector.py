"""A trained model in the precision in which it is served: graphs, thresholds, expected answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from diffusionad_client.artifacts import agreement
from diffusionad_client.artifacts.bundle import AgreementSet, References
from diffusionad_client.artifacts.calibration import calibrate, pixel_level, threshold_for
from diffusionad_client.artifacts.metadata import Agreement, Calibration, Precision, Thresholds
from diffusionad_client.artifacts.roi import Mask
from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_training.evaluation.scorers import BATCH, Scored, TorchScorer
from diffusionad_training.export import lowering, samples
from diffusionad_training.export.graphs import serialise
from diffusionad_training.export.runtime import GraphChain
from diffusionad_training.export.samples import Answers, Images, Samples
from diffusionad_training.method.model import DiffusionAD

RANGE_IMAGES = 16  # good ones at most that set the ranges of int8; as many altered
_RANGE_SEED = 1_000_000  # of their anomalies, which are not those that agreement is measured on


@dataclass(frozen=True)
class Rates:
    """Shares of good parts that may be turned away."""

    false_reject: float  # NG
    review: float  # REVIEW or NG


@dataclass(frozen=True)
class CalibratedThresholds:
    """The thresholds of one precision, from its own answers to the held-out images."""

    thresholds: Thresholds
    pixel_threshold: float
    calibration: Calibration


@dataclass(frozen=True)
class ServedDetector:
    """What is served, and the answers that it has to give."""

    graphs: Mapping[Step, bytes]
    limits: CalibratedThresholds
    references: References
    agreement_set: AgreementSet | None = None  # this and those below: of a lower precision
    agreement: Agreement | None = None
    speedup: float | None = None


def in_float32(
    model: DiffusionAD, traced: Mapping[Step, onnx.ModelProto], drawn: Samples, rates: Rates
) -> tuple[ServedDetector, Answers]:
    """Take the model as it was trained; torch gives the answers to the samples."""
    answers = samples.answer(drawn, partial(_score, TorchScorer(model)))
    detector = ServedDetector(
        graphs={step: serialise(traced[step], step) for step in NETWORK_STEPS},
        limits=_set_limits(answers, rates),
        references=samples.references(drawn, answers),
    )
    return detector, answers


def in_precision(
    precision: Precision,
    traced: Mapping[Step, onnx.ModelProto],
    drawn: Samples,
    rates: Rates,
    *,
    float32: tuple[ServedDetector, Answers],
    roi: Mask | None,
) -> ServedDetector:
    """Lower the precision of the networks, and hold it against float32.

    Raises `ExportError` if it does not judge as float32 does.
    """
    exact, exact_answers = float32
    graphs = lowering.lower(traced, precision, _range_images(drawn, roi))
    chain = GraphChain(graphs)
    answers = samples.answer(drawn, chain.score)
    limits = _set_limits(answers, rates)
    expected = samples.agreement_set(drawn, exact_answers, exact.limits.thresholds)
    measured = agreement.measure(
        expected, samples.agreement_scores(drawn, answers), limits.thresholds
    )
    lowering.check_agreement(precision, measured)
    return ServedDetector(
        graphs=graphs,
        limits=limits,
        references=samples.references(drawn, answers),
        agreement_set=expected,
        agreement=measured,
        speedup=lowering.speedup(GraphChain(exact.graphs), chain, drawn.good[0]),
    )


def _range_images(drawn: Samples, roi: Mask | None) -> Images:
    """Choose the images that set the ranges of int8: good and anomalous, so that defects fit in."""
    of_ranges = samples.draw_samples(drawn.good, RANGE_IMAGES, roi=roi, first_seed=_RANGE_SEED)
    return np.concatenate([of_ranges.good[of_ranges.chosen], of_ranges.altered])


def _score(scorer: TorchScorer, images: Images) -> list[Scored]:
    return [
        one
        for start in range(0, len(images), BATCH)
        for one in scorer.score_arrays(images[start : start + BATCH])
    ]


def _set_limits(answers: Answers, rates: Rates) -> CalibratedThresholds:
    thresholds, calibration = calibrate(
        [one.score for one in answers.good],
        false_reject_rate=rates.false_reject,
        review_rate=rates.review,
    )
    levels = [pixel_level(one.anomaly_map) for one in answers.good]
    return CalibratedThresholds(thresholds, threshold_for(levels, rates.false_reject), calibration)
