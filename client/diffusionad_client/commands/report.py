"""`diffusionad report`: make the report of a run again."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--images",
    "image_root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the scored images lie now, if they were moved.",
)
def report(results: Path, image_root: Path | None) -> None:
    """Make report.html again from RESULTS, the output folder of `diffusionad score`."""
    from diffusionad_client.output_folders import held
    from diffusionad_client.report.page import write_report
    from diffusionad_client.scoring.results import check_results

    check_results(results)
    with held(results):
        click.echo(write_report(results, image_root=image_root))
