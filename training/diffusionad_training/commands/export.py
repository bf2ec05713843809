"""`diffusionad export`: from a run to a release bundle."""

from __future__ import annotations

from pathlib import Path

import click

from diffusionad_client.commands.options import Number

_FASTER = 1.05  # times as fast; less is within what a busy machine varies by


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for the bundle."
)
@click.option("--name", help="Category: what the model is called. Default: the run folder's name.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="What the networks compute in: fp16 is for GPUs, int8 for CPUs.",
)
@click.option(
    "--roi",
    type=click.Path(path_type=Path),
    metavar="MASK",
    help="Image whose black pixels are not inspected. Default: all are.",
)
@click.option(
    "--false-reject-rate",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of good parts that may be NG.",
)
@click.option(
    "--review-rate",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of good parts that may be REVIEW or NG.",
)
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path),
    help="JSON of `diffusionad evaluate --run RUN`: its metrics go into the metadata.",
)
def export(
    run: Path,
    output: Path,
    name: str | None,
    precision: str,
    roi: Path | None,
    false_reject_rate: float,
    review_rate: float,
    evaluation: Path | None,
) -> None:
    """Export the trained RUN as a release bundle.

    Writes three ONNX graphs, checked against torch, with thresholds from the
    run's held-out good images. A lower precision is written only if it judges
    those images, and the same with synthetic anomalies, as fp32 does.

    \b
      diffusionad export runs/screw --output bundles/screw --name screw
      diffusionad export runs/screw --output bundles/fast --name screw --precision int8
    """
    from diffusionad_client.artifacts import roi as region
    from diffusionad_client.artifacts.agreement import describe
    from diffusionad_client.artifacts.metadata import Precision
    from diffusionad_training.data.roi import read_roi
    from diffusionad_training.errors import ExportError
    from diffusionad_training.evaluation.results import read_record
    from diffusionad_training.export import bundle
    from diffusionad_training.run.checkpoint import load_run

    trained = load_run(run)
    inspected = None if roi is None else read_roi(roi, trained.model.config.size)
    metrics: dict[str, float | None] = {}
    if evaluation is not None:
        record = read_record(evaluation)
        if record.detector != trained.weights_digest:
            raise ExportError(
                f"{evaluation}: measured other weights than {run} has; run "
                f"`diffusionad evaluate --run {run}` again"
            )
        if record.roi != (None if inspected is None else region.digest(inspected)):
            again = f"--run {run}" if roi is None else f"--run {run} --roi {roi}"
            raise ExportError(
                f"{evaluation}: measured another region of interest than is exported; run "
                f"`diffusionad evaluate {again}` again"
            )
        metrics = record.metrics
    exported = bundle.export(
        trained,
        output,
        category=name or run.resolve().name,
        precision=Precision(precision),
        inspected=inspected,
        false_reject_rate=false_reject_rate,
        review_rate=review_rate,
        metrics=metrics,
        report=lambda line: click.echo(line, err=True),
    )
    metadata, parity = exported.metadata, exported.parity
    click.echo(
        f"ONNX Runtime agrees with torch: scores within {parity.score:.1e}, "
        f"maps within {parity.anomaly_map:.1e}"
    )
    if metadata.agreement is not None and metadata.speedup is not None:
        click.echo(
            f"{metadata.precision} agrees with fp32 on {metadata.agreement.images} images: "
            f"{describe(metadata.agreement)}"
        )
        click.echo(_describe_speed(metadata.precision.value, metadata.speedup))
    click.echo(
        f"Thresholds from {metadata.calibration.good_images} good images: accept below "
        f"{metadata.thresholds.accept:.4f}, reject from {metadata.thresholds.reject:.4f}"
    )
    if metadata.calibration.warning:
        click.echo(f"Warning: {metadata.calibration.warning}", err=True)
    click.echo(f"Release {metadata.release} of {metadata.category}: {output}")
    click.echo(f"Next: diffusionad release add {output} --repository model_repository")


def _describe_speed(precision: str, speedup: float) -> str:
    if speedup >= _FASTER:
        return f"{precision} scores an image {speedup:.2f} times as fast as fp32 on this CPU"
    line = f"{precision} is not faster than fp32 on this CPU: {speedup:.2f} times its speed"
    return f"{line}; it is for GPUs" if precision == "fp16" else f"{line}; serve fp32 on such ones"
