"""`diffusionad score`: score images and write results, heat maps and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.cli import EXIT_SOME_FAILED
from diffusionad_client.commands.options import Number, concurrency_option
from diffusionad_client.commands.server import ServerChoice, model_option, reaches_server

if TYPE_CHECKING:
    from diffusionad_client.scoring.results import RunSummary

_SCORE = Number(0, 1)  # of a part, by the contract


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
@concurrency_option
# verdicts
@click.option("--accept", type=_SCORE, help="OK below this score; default: the release's.")
@click.option("--reject", type=_SCORE, help="NG from this score on; default: the release's.")
# output
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the results.",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option("--no-heatmaps", is_flag=True, help="No heat maps and reconstructions: faster.")
@click.option(
    "--picture-format",
    type=click.Choice(["png", "jpeg", "webp"]),
    default="png",
    show_default=True,
    help="Of the heat maps: png loses nothing, jpeg is made fastest, webp is smallest.",
)
@click.option("--save-maps", is_flag=True, help="Also save the raw maps, as 16-bit PNG.")
@click.option("--no-report", is_flag=True, help="No report.html.")
@click.pass_context
def score(
    ctx: click.Context,
    *,
    sources: tuple[str, ...],
    lists: tuple[Path, ...],
    model: str | None,
    server: ServerChoice,
    concurrency: int,
    accept: float | None,
    reject: float | None,
    output: Path,
    overwrite: bool,
    no_heatmaps: bool,
    picture_format: str,
    save_maps: bool,
    no_report: bool,
) -> None:
    """Score images: each SOURCE is an image, a folder or a quoted glob pattern.

    Exits with 0 if all images were scored, with 3 if some could not be.

    \b
      diffusionad score images/ --model screw --output results
      diffusionad score 'line1/**/*.png' --url triton:8001 --output results
      diffusionad score images/ --repository model_repository --output results
    """
    from diffusionad_client.commands.progress import scoring_progress
    from diffusionad_client.files import PART
    from diffusionad_client.output_folders import check_claim
    from diffusionad_client.pages.pictures import PictureFormat
    from diffusionad_client.pages.rendering import check_can_render
    from diffusionad_client.report.page import write_report
    from diffusionad_client.scoring.batch import Settings, score_batch
    from diffusionad_client.scoring.results import REPORT_HTML, RESULTS, RESULTS_JSONL
    from diffusionad_client.scoring.sources import find_images

    if not (sources or lists):
        raise click.UsageError("name at least one SOURCE, or a --list of images")
    if not no_report:
        check_can_render()
    check_claim(output, RESULTS, overwrite=overwrite)  # before a server is started for nothing
    images = find_images(sources, lists=lists, skip=output, timeout=server.timeout)
    for line in images.left_out.described():
        click.echo(f"Left out {line}", err=True)
    settings = Settings(
        output=output,
        model=model,
        accept=accept,
        reject=reject,
        heatmaps=not no_heatmaps,
        picture_format=PictureFormat(picture_format),
        save_maps=save_maps,
        overwrite=overwrite,
        concurrency=concurrency,
    )
    add = (lambda output: None) if no_report else write_report
    try:
        with server.open() as connection, scoring_progress(images.count) as on_row:
            summary = score_batch(connection, images, settings, on_row, add)
    except KeyboardInterrupt:
        part = output / (RESULTS_JSONL + PART)
        if part.exists():  # it was not while a server was still starting
            click.echo(f"\nWhat was scored so far is in {part}.", err=True)
        raise
    _print_summary(summary, output, heatmaps=not no_heatmaps)
    if not no_report:
        click.echo(f"Report     {output / REPORT_HTML}")
    ctx.exit(EXIT_SOME_FAILED if summary.failed else 0)


def _print_summary(summary: RunSummary, output: Path, *, heatmaps: bool) -> None:
    from diffusionad_client.scoring import results

    counts = "   ".join(f"{name} {count}" for name, count in summary.verdicts.items())
    rate = summary.images / summary.seconds if summary.seconds else 0.0
    click.echo(f"{summary.images} images, {summary.model}: {counts}   failed {summary.failed}")
    click.echo(f"{summary.seconds:.1f} s, {rate:.1f} images/s")
    click.echo(f"Results    {output / results.RESULTS_JSONL}")
    click.echo(f"           {output / results.RESULTS_CSV}")
    if heatmaps:
        click.echo(f"Heat maps  {output / results.HEATMAPS}")
