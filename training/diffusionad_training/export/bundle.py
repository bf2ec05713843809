"""Write the release bundle of a run: the only thing that training hands on."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.bundle import (
    METADATA_FILE,
    REFERENCES_FILE,
    References,
    graph_path,
    write_references,
)
from diffusionad_client.calibration import calibrate, pixel_level, threshold_for
from diffusionad_client.contract import Step, check_category
from diffusionad_client.metadata import ReleaseMetadata, TrainingSummary, release_digest
from diffusionad_training.checkpoint import Run
from diffusionad_training.config import SynthesisConfig
from diffusionad_training.errors import ExportError
from diffusionad_training.export.graphs import export_step
from diffusionad_training.export.parity import Parity, check_parity
from diffusionad_training.scorers import BATCH, Scored, TorchScorer
from diffusionad_training.synthesis.anomalies import AnomalySynthesiser

GOOD_REFERENCES = 4  # held-out good images; as many again get a synthetic anomaly


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export made."""

    folder: Path
    metadata: ReleaseMetadata
    parity: Parity


def export(
    run: Run,
    output: Path,
    *,
    category: str,
    false_reject_rate: float = 0.01,
    review_rate: float = 0.05,
    metrics: dict[str, float | None] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write a run as the bundle `output`, whole or not at all.

    Thresholds come from the run's held-out good images. Exporting the same
    run again gives identical files. Raises `ExportError`,
    `CategoryNameError` or `CheckpointError`.
    """
    check_category(category)
    if output.exists():
        raise ExportError(f"{output}: exists already; name another folder, or remove it first")
    scorer = TorchScorer(run.model)
    held_out = run.held_out_images()
    report(f"scoring {len(held_out)} held-out good images")
    scored = _score(scorer, held_out)
    thresholds, calibration = calibrate(
        [one.score for one in scored],
        false_reject_rate=false_reject_rate,
        review_rate=review_rate,
    )
    references = _references(scorer, held_out)
    graphs: dict[Step, bytes] = {}
    for step in Step:
        report(f"exporting {step.value}")
        graphs[step] = export_step(run.model, step)
    parity = check_parity(graphs, references)
    digests = {step.value: hashlib.sha256(graphs[step]).hexdigest() for step in Step}
    levels = [pixel_level(one.anomaly_map) for one in scored]
    pixel_threshold = threshold_for(levels, false_reject_rate)
    metadata = ReleaseMetadata(
        category=category,
        release=release_digest(
            category=category,
            digests=digests,
            thresholds=thresholds,
            pixel_threshold=pixel_threshold,
        ),
        preset=run.model.config.preset,
        size=run.model.config.size,
        thresholds=thresholds,
        pixel_threshold=pixel_threshold,
        calibration=calibration,
        training=TrainingSummary(
            images=run.record.training_images,
            steps=run.record.steps,
            seed=run.record.seed,
            data_digest=run.record.data_digest,
        ),
        digests=digests,
        metrics=metrics or {},
    )
    _write(output, metadata, graphs, references)
    return Exported(output, metadata, parity)


def _score(scorer: TorchScorer, images: NDArray[np.uint8]) -> list[Scored]:
    return [
        one
        for start in range(0, len(images), BATCH)
        for one in scorer.score_arrays(images[start : start + BATCH])
    ]


def _references(scorer: TorchScorer, held_out: NDArray[np.uint8]) -> References:
    """Good images and the same with a synthetic anomaly, so that high scores are compared too."""
    good = held_out[:GOOD_REFERENCES]
    synthesiser = AnomalySynthesiser(
        SynthesisConfig(texture_share=0, self_share=0.5, procedural_share=0.5), textures=None
    )
    anomalous = [
        synthesiser.synthesise(image, np.random.default_rng(index))[0]
        for index, image in enumerate(good)
    ]
    images = np.concatenate([good, np.stack(anomalous)])
    scored = _score(scorer, images)
    return References(
        images=images,
        scores=np.asarray([one.score for one in scored], dtype=np.float32),
        anomaly_maps=np.stack([one.anomaly_map for one in scored]),
    )


def _write(
    output: Path, metadata: ReleaseMetadata, graphs: dict[Step, bytes], references: References
) -> None:
    partial = output.with_name(output.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.mkdir(parents=True)
    for step in Step:
        graph_path(partial, step).write_bytes(graphs[step])
    write_references(partial / REFERENCES_FILE, references)
    (partial / METADATA_FILE).write_text(metadata.to_json() + "\n", encoding="utf-8")
    partial.rename(output)
