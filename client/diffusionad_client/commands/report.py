"""`diffusionad report`: make the report of a run again."""

from __future__ import annotations

from pathlib import Path

import click

from diffusionad_client.commands.options import calibrated_to


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--images",
    "image_root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the scored images lie now, if they were moved.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="EARLIER",
    help="Tell the drift from the results of an earlier run.",
)
@calibrated_to
@click.option("--embed", is_flag=True, help="Put pictures inside the page, to send it alone.")
@click.option("--pdf", is_flag=True, help="Also print it to report.pdf, with Chromium.")
def report(
    *,
    results: Path,
    image_root: Path | None,
    baseline: Path | None,
    false_reject_rate: float | None,
    review_rate: float | None,
    embed: bool,
    pdf: bool,
) -> None:
    """Make report.html again from RESULTS, the output folder of `diffusionad score`.

    The page shows pictures from where they lie. With --embed it holds small
    copies of those of the highest scores, and of some images of each verdict.
    """
    from diffusionad_client.drift.meaning import Asked
    from diffusionad_client.output_folders import held
    from diffusionad_client.report.page import write_report
    from diffusionad_client.report.pdf import find_browser, print_page
    from diffusionad_client.scoring.results import REPORT_PDF, check_results

    if baseline is None and (false_reject_rate is not None or review_rate is not None):
        raise click.UsageError("the rates are what a --baseline is compared by; name one")
    for folder in (results, baseline):
        if folder is not None:
            check_results(folder)
    if pdf:
        find_browser()  # before a page is made for nothing
    with held(results):
        page = write_report(
            results,
            image_root=image_root,
            embed=embed,
            baseline=baseline,
            asked=Asked(false_reject_rate=false_reject_rate, review_rate=review_rate),
        )
        click.echo(page)
        if pdf:
            print_page(page, results / REPORT_PDF)
            click.echo(results / REPORT_PDF)
