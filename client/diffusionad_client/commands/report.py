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
@click.option("--embed", is_flag=True, help="Put pictures inside the page, to send it alone.")
@click.option("--pdf", is_flag=True, help="Also print it to report.pdf, with Chromium.")
def report(results: Path, image_root: Path | None, embed: bool, pdf: bool) -> None:
    """Make report.html again from RESULTS, the output folder of `diffusionad score`.

    The page shows pictures from where they lie. With --embed it holds small
    copies of those of the highest scores, and of some images of each verdict.
    """
    from diffusionad_client.output_folders import held
    from diffusionad_client.report.page import write_report
    from diffusionad_client.report.pdf import find_browser, print_page
    from diffusionad_client.scoring.results import REPORT_PDF, check_results

    check_results(results)
    if pdf:
        find_browser()  # before a page is made for nothing
    with held(results):
        page = write_report(results, image_root=image_root, embed=embed)
        click.echo(page)
        if pdf:
            print_page(page, results / REPORT_PDF)
            click.echo(results / REPORT_PDF)
