"""`diffusionad release compare`: two releases, served side by side, on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.cli import EXIT_SOME_FAILED
from diffusionad_client.commands.options import concurrency_option
from diffusionad_client.commands.server import ServerChoice, reaches_server

if TYPE_CHECKING:
    from diffusionad_client.comparison.pairing import Comparison


@click.command()
@click.argument("base")
@click.argument("candidate")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@reaches_server(repository=True, default_url=None)
@concurrency_option
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the comparison.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier comparison.")
@click.option("--no-heatmaps", is_flag=True, help="No heat maps of changed images: faster.")
@click.pass_context
def compare(
    ctx: click.Context,
    *,
    base: str,
    candidate: str,
    sources: tuple[str, ...],
    server: ServerChoice,
    concurrency: int,
    output: Path,
    overwrite: bool,
    no_heatmaps: bool,
) -> None:
    """Score images with the categories BASE and CANDIDATE, and show what differs.

    Writes compare.html and compare.json, and the results of both. Where the
    images lie in folders by class (test/good, test/scratch, ...) each is
    counted by itself. Exits with 3 if some images could not be scored.

    \b
    Example:
      diffusionad release add bundles/new --name screw-candidate --repository model_repository
      diffusionad release compare screw screw-candidate images/test
        --repository model_repository --output compared
    """
    from diffusionad_client.commands.progress import scoring_progress
    from diffusionad_client.comparison.run import COMPARE_HTML, check_output, compare_models
    from diffusionad_client.pages.rendering import check_can_render
    from diffusionad_client.scoring.drawing import Heatmaps
    from diffusionad_client.scoring.settings import Settings
    from diffusionad_client.scoring.sources import find_images

    if not server.is_made:
        raise click.UsageError("give either --url or --repository")
    check_can_render()
    check_output(output, overwrite=overwrite)
    images = find_images(sources, skip=output, timeout=server.timeout)
    settings = Settings(
        output=output,
        heatmaps=Heatmaps.NONE if no_heatmaps else Heatmaps.ALL,
        overwrite=overwrite,
        concurrency=concurrency,
    )
    with server.open() as connection:
        result = compare_models(connection, base, candidate, images, settings, scoring_progress)
    _print_summary(result)
    click.echo(f"Comparison  {output / COMPARE_HTML}")
    ctx.exit(EXIT_SOME_FAILED if result.failures else 0)


def _print_summary(result: Comparison) -> None:
    for side in (result.base, result.candidate):
        counts = "   ".join(f"{name} {count}" for name, count in side.summary.verdicts.items())
        auroc = "" if side.auroc is None else f"   AUROC {side.auroc:.4f}"
        click.echo(f"{side.summary.model}: {counts}   failed {side.summary.failed}{auroc}")
    share = 100 * len(result.changes) / result.compared if result.compared else 0.0
    correlation = "none" if result.spearman is None else f"{result.spearman:.4f}"
    click.echo(
        f"{len(result.changes)} of {result.compared} verdicts differ ({share:.1f} %); "
        f"Spearman correlation of the scores: {correlation}"
    )
    for (before, after), count in sorted(result.transitions.items()):
        if before != after:
            click.echo(f"  {before} -> {after}: {count}")
