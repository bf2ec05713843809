"""`diffusionad results`: other forms of the results of a run."""

from __future__ import annotations

from pathlib import Path

import click

from diffusionad_client.cli import WholeSummaries


@click.group(cls=WholeSummaries)
def results() -> None:
    """Work on the results of `diffusionad score`."""


@results.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "parquet"]),
    required=True,
    help="csv is safe to open in a spreadsheet; parquet needs diffusionad-client[parquet].",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write; default: beside the results.",
)
def convert(results: Path, form: str, output: Path | None) -> None:
    """Make a table of RESULTS, the output folder of `diffusionad score` or a results.jsonl.

    Of several records of an image the last one is taken.

    \b
      diffusionad results convert results --format parquet
    """
    from contextlib import ExitStack

    from diffusionad_client.errors import OutputError
    from diffusionad_client.files import PART, publish
    from diffusionad_client.output_folders import held
    from diffusionad_client.scoring.results import RESULTS_JSONL, check_results
    from diffusionad_client.scoring.tables import Format, check_can_write, write_table

    chosen = Format(form)
    check_can_write([chosen])
    folder = None if results.is_file() else results
    if folder is not None:
        check_results(folder)
    source = results if folder is None else folder / RESULTS_JSONL
    target = source.with_suffix(f".{chosen}") if output is None else output
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target}: holds the results themselves; name another --output")
    part = target.with_name(target.name + PART)
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(held(folder))
        write_table(source, part, chosen)
        publish(part, target)
    click.echo(target)
