"""`diffusionad export`: from a run to a release bundle."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for the bundle."
)
@click.option("--name", help="Category: what the model is called. Default: the run folder's name.")
@click.option(
    "--false-reject-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of good parts that may be NG.",
)
@click.option(
    "--review-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
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
    false_reject_rate: float,
    review_rate: float,
    evaluation: Path | None,
) -> None:
    r"""Export the trained RUN as a release bundle.

    Writes three ONNX graphs, checked against torch, with thresholds from the
    run's held-out good images.

    \b
      diffusionad export runs/screw --output bundles/screw --name screw
    """
    from diffusionad_training.checkpoint import load_run
    from diffusionad_training.errors import ExportError
    from diffusionad_training.evaluation import read_metrics
    from diffusionad_training.export import bundle

    trained = load_run(run)
    metrics: dict[str, float | None] = {}
    if evaluation is not None:
        detector, metrics = read_metrics(evaluation)
        if detector != trained.weights_digest:
            raise ExportError(
                f"{evaluation}: measured other weights than {run} has; run "
                f"`diffusionad evaluate --run {run}` again"
            )
    exported = bundle.export(
        trained,
        output,
        category=name or run.resolve().name,
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
    click.echo(
        f"Thresholds from {metadata.calibration.good_images} good images: accept below "
        f"{metadata.thresholds.accept:.4f}, reject from {metadata.thresholds.reject:.4f}"
    )
    if metadata.calibration.warning:
        click.echo(f"Warning: {metadata.calibration.warning}", err=True)
    click.echo(f"Release {metadata.release} of {metadata.category}: {output}")
    click.echo(f"Next: diffusionad release add {output} --repository model_repository")
