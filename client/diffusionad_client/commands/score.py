"""`diffusionad score`: score images and write results, heat maps and a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffusionad_client.cli import EXIT_DEFECTS, EXIT_SERVER_GONE, EXIT_SOME_FAILED
from diffusionad_client.commands.options import (
    SECONDS_OR_NONE,
    concurrency_or_auto_option,
)
from diffusionad_client.commands.score_values import parsed
from diffusionad_client.commands.scoring_options import (
    ScoringChoice,
    results_option,
    scores_images,
)
from diffusionad_client.commands.server import ServerChoice, model_option, reaches_server

if TYPE_CHECKING:
    from diffusionad_client.scoring.results import RunSummary
    from diffusionad_client.scoring.settings import Cluster, Settings

_PATIENCE_S = 600.0


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--list",
    "lists",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Score the images named in FILE, one path a line; - is standard input.",
)
@model_option
@reaches_server(repository=True)
@concurrency_or_auto_option
# more than one machine
@click.option(
    "--engine",
    type=click.Choice(["threads", "ray"]),
    default="threads",
    show_default=True,
    help="Where the images are worked on: in this process, or on a Ray cluster.",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    help="The head of a Ray cluster, or auto.  [default: one is started on this machine]",
)
@click.option(
    "--ray-workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Each has --concurrency images under way.  [default: one for each CPU of the cluster]",
)
# what is made of the images
@scores_images
# output
@results_option
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option("--no-heatmaps", is_flag=True, help="The same as --heatmaps none.")
@click.option("--no-report", is_flag=True, help="No report.html.")
# how it ends
@click.option(
    "--fail-on",
    type=click.Choice(["ng", "review"]),
    help="Exit with 10 if an image is NG, or REVIEW or NG.",
)
@click.option(
    "--max-failures",
    metavar="N|P%",
    help="Stop when more images than that, or a larger share of them, could not be scored.",
)
@click.option(
    "--patience",
    type=SECONDS_OR_NONE,
    default=_PATIENCE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long the run waits for a server that went away.",
)
@click.option("--json-progress", is_flag=True, help="Progress as JSON lines, for machines.")
@click.pass_context
def score(
    ctx: click.Context,
    *,
    sources: tuple[str, ...],
    lists: tuple[Path, ...],
    model: str | None,
    server: ServerChoice,
    concurrency: int | None,
    engine: str,
    ray_address: str | None,
    ray_workers: int | None,
    choice: ScoringChoice,
    output: Path,
    overwrite: bool,
    no_heatmaps: bool,
    no_report: bool,
    fail_on: str | None,
    max_failures: str | None,
    patience: float,
    json_progress: bool,
) -> None:
    """Score images: each SOURCE is an image, a folder or a quoted glob pattern.

    The same command again goes on where it was stopped, and does only what is
    missing. Exits with 0 if all images were scored, with 3 if some could not
    be, with 4 if the server went away, with 10 for defects with --fail-on.

    \b
      diffusionad score images/ --model screw --output results
      diffusionad score 'line1/**/*.png' --url triton:8001 --output results
      diffusionad score images/ --repository model_repository --output results
    """
    from diffusionad_client.output_folders import check_claim
    from diffusionad_client.pages.rendering import check_can_render
    from diffusionad_client.scoring.limits import FailureLimit
    from diffusionad_client.scoring.results import REPORT_HTML, RESULTS
    from diffusionad_client.scoring.sources import find_images

    if not (sources or lists):
        raise click.UsageError("name at least one SOURCE, or a --list of images")
    if no_heatmaps:
        choice = replace(choice, heatmaps="none")
    settings = choice.settings(
        output=output,
        model=model,
        overwrite=overwrite,
        concurrency=concurrency,
        cluster=_cluster(engine, ray_address, ray_workers, server),
        patience=patience,
        max_failures=(
            FailureLimit() if max_failures is None else parsed(FailureLimit.parse, max_failures)
        ),
    )
    if not no_report:
        check_can_render()
    check_claim(output, RESULTS, overwrite=True)  # before a server is started for nothing
    images = find_images(sources, lists=lists, skip=output, timeout=server.timeout)
    for line in images.left_out.described():
        click.echo(f"Left out {line}", err=True)
    settings.fields.check_matches(image.name for image in images)
    summary = _run(ctx, server, images, settings, report=not no_report, as_json=json_progress)
    _print_summary(summary, settings)
    if not no_report:
        click.echo(f"Report     {output / REPORT_HTML}")
    ctx.exit(_exit_code(summary, fail_on))


def _cluster(
    engine: str, address: str | None, workers: int | None, server: ServerChoice
) -> Cluster | None:
    if engine != "ray":
        if address is not None or workers is not None:
            raise click.UsageError("--ray-address and --ray-workers are of use with --engine ray")
        return None
    if address is not None and server.repository is not None:
        raise click.UsageError(
            "a server that is started for the run is there for this machine alone; name the "
            "servers with --url"
        )
    from diffusionad_client.scoring.on_ray import check_can_run
    from diffusionad_client.scoring.settings import Cluster

    check_can_run()
    return Cluster(address, workers)


def _run(
    ctx: click.Context,
    server: ServerChoice,
    images: Any,
    settings: Settings,
    *,
    report: bool,
    as_json: bool,
) -> RunSummary:
    from diffusionad_client.commands.interrupts import first_ctrl_c
    from diffusionad_client.commands.progress import scoring_progress
    from diffusionad_client.errors import ServerGoneError
    from diffusionad_client.files import PART
    from diffusionad_client.report.page import write_report
    from diffusionad_client.scoring.batch import score_batch
    from diffusionad_client.scoring.results import RESULTS_JSONL

    add = write_report if report else (lambda output: None)
    try:
        with (
            server.open() as connection,
            scoring_progress(images.count, as_json=as_json) as listener,
            first_ctrl_c() as stop,
        ):
            return score_batch(connection, images, settings, listener, add, stop)
    except ServerGoneError as exc:
        click.echo(f"Error: {exc}; the same command goes on", err=True)
        ctx.exit(EXIT_SERVER_GONE)
    except KeyboardInterrupt:
        whole, part = settings.output / RESULTS_JSONL, settings.output / (RESULTS_JSONL + PART)
        if part.exists() or whole.exists():  # neither was while a server was still starting
            place = part if part.exists() else whole
            click.echo(
                f"\nWhat was scored so far is in {place}; the same command goes on.", err=True
            )
        raise


def _exit_code(summary: RunSummary, fail_on: str | None) -> int:
    bad = {"ng": ("NG",), "review": ("NG", "REVIEW")}.get(fail_on or "", ())
    if any(summary.verdicts.get(verdict) for verdict in bad):
        return EXIT_DEFECTS
    return EXIT_SOME_FAILED if summary.failed else 0


def _print_summary(summary: RunSummary, settings: Settings) -> None:
    from diffusionad_client.scoring import results
    from diffusionad_client.scoring.drawing import Heatmaps
    from diffusionad_client.scoring.sinks import TABLES

    counts = "   ".join(f"{name} {count}" for name, count in summary.verdicts.items())
    scored = summary.images if summary.scored is None else summary.scored
    rate = summary.images_per_second or 0.0
    click.echo(f"{summary.images} images, {summary.model}: {counts}   failed {summary.failed}")
    if scored < summary.images:
        click.echo(f"{scored} of them now, {summary.images - scored} before")
    click.echo(f"{summary.seconds:.1f} s, {rate:.1f} images/s")
    click.echo(f"Results    {settings.output / results.RESULTS_JSONL}")
    for form, name in TABLES.items():
        if form in settings.formats:
            click.echo(f"           {settings.output / name}")
    if settings.heatmaps is not Heatmaps.NONE:
        click.echo(f"Heat maps  {settings.output / results.HEATMAPS}")
