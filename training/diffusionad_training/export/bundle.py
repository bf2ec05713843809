"""Write the release bundle of a run: the only thing that training hands on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from diffusionad_client.artifacts import roi
from diffusionad_client.artifacts.bundle import (
    AGREEMENT_FILE,
    METADATA_FILE,
    NOTICE_FILE,
    REFERENCES_FILE,
    ROI_FILE,
    graph_path,
    write_agreement_set,
    write_references,
)
from diffusionad_client.artifacts.metadata import (
    Precision,
    ReleaseMetadata,
    TrainingSummary,
    release_digest,
)
from diffusionad_client.contract import NETWORK_STEPS, check_category
from diffusionad_client.files import PART, output_errors
from diffusionad_training.errors import ExportError
from diffusionad_training.export.detector import Rates, ServedDetector, in_float32, in_precision
from diffusionad_training.export.graphs import notice, trace_step
from diffusionad_training.export.parity import Parity, check_parity
from diffusionad_training.export.samples import GOOD_REFERENCES, draw_samples
from diffusionad_training.run.checkpoint import Run

AGREEMENT_IMAGES = 64  # good ones at most, which a lower precision is held against; as many altered


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
    precision: Precision = Precision.FP32,
    inspected: roi.Mask | None = None,
    false_reject_rate: float = 0.01,
    review_rate: float = 0.05,
    metrics: dict[str, float | None] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write a run as the bundle `output`, whole or not at all.

    Thresholds come from the run's held-out good images, scored in the
    precision that is exported. Only the pixels `inspected` count, a mask at
    the model's size. Exporting the same run again gives identical files, but
    for the speedup in the metadata of a lower precision. Raises `ExportError`,
    `CategoryNameError` or `CheckpointError`.
    """
    check_category(category)
    if output.exists():
        raise ExportError(f"{output}: exists already; name another folder, or remove it first")
    if not run.model.restoration.is_served:
        raise ExportError(
            f"{run.folder}: restores with an autoencoder, which is for comparison only"
            "; train with --set restoration=diffusion"
        )
    run.model.restrict_to(None if inspected is None else torch.from_numpy(inspected))
    rates = Rates(false_reject=false_reject_rate, review=review_rate)
    held_out = run.held_out_images()
    is_lowered = precision is not Precision.FP32
    drawn = draw_samples(
        held_out, AGREEMENT_IMAGES if is_lowered else GOOD_REFERENCES, roi=inspected
    )
    traced = {}
    for step in NETWORK_STEPS:
        report(f"exporting {step.value}")
        traced[step] = trace_step(run.model, step)
    report(f"scoring {len(held_out)} held-out good images")
    detector, answers = in_float32(run.model, traced, drawn, rates)
    parity = check_parity(detector.graphs, detector.references)
    if is_lowered:
        report(f"lowering the networks to {precision}, and comparing it with fp32")
        detector = in_precision(
            precision, traced, drawn, rates, float32=(detector, answers), roi=inspected
        )
    metadata = _describe(run, category, precision, inspected, detector, metrics or {})
    _write(output, metadata, detector, inspected, notice(run.model))
    return Exported(output, metadata, parity)


def _describe(
    run: Run,
    category: str,
    precision: Precision,
    inspected: roi.Mask | None,
    detector: ServedDetector,
    metrics: dict[str, float | None],
) -> ReleaseMetadata:
    limits = detector.limits
    digests = {
        step.value: hashlib.sha256(detector.graphs[step]).hexdigest() for step in NETWORK_STEPS
    }
    return ReleaseMetadata(
        category=category,
        release=release_digest(
            category=category,
            digests=digests,
            thresholds=limits.thresholds,
            pixel_threshold=limits.pixel_threshold,
            depth=run.model.config.depth,
        ),
        preset=run.config.preset,
        size=run.model.config.size,
        depth=run.model.config.depth,
        thresholds=limits.thresholds,
        pixel_threshold=limits.pixel_threshold,
        calibration=limits.calibration,
        training=TrainingSummary(
            images=run.record.training_images,
            steps=run.record.steps,
            seed=run.record.seed,
            data_digest=run.record.data_digest,
        ),
        digests=digests,
        metrics=metrics,
        precision=precision,
        agreement=detector.agreement,
        speedup=detector.speedup,
        roi=None if inspected is None else roi.digest(inspected),
    )


def _write(
    output: Path,
    metadata: ReleaseMetadata,
    detector: ServedDetector,
    inspected: roi.Mask | None,
    of_others: str,
) -> None:
    with output_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        # Of this export alone, so that nothing that lies there is removed to make room.
        partial = Path(tempfile.mkdtemp(prefix=f"{output.name}{PART}-", dir=output.parent))
        try:
            _write_into(partial, metadata, detector, inspected)
            if of_others:
                (partial / NOTICE_FILE).write_text(of_others + "\n", encoding="utf-8")
            partial.chmod(0o777 & ~_umask())  # as of any folder; a temporary one is its owner's
            partial.rename(output)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _write_into(
    folder: Path, metadata: ReleaseMetadata, detector: ServedDetector, inspected: roi.Mask | None
) -> None:
    for step in NETWORK_STEPS:
        graph_path(folder, step).write_bytes(detector.graphs[step])
    write_references(folder / REFERENCES_FILE, detector.references)
    if detector.agreement_set is not None:
        write_agreement_set(folder / AGREEMENT_FILE, detector.agreement_set)
    if inspected is not None:
        (folder / ROI_FILE).write_bytes(roi.to_png(inspected))
    (folder / METADATA_FILE).write_text(metadata.to_json() + "\n", encoding="utf-8")


def _umask() -> int:
    """The process's mask of permissions, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
