"""`diffusionad datasets`: public data sets, as they were downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.commands.options import json_option

if TYPE_CHECKING:
    from diffusionad_training.data.completeness import SetCheck


@click.group()
def datasets() -> None:
    """Tell whether a public data set was downloaded whole."""


@datasets.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--category", help="What DIR is a category of, if its folder is called otherwise.")
@json_option
def check(folder: Path, category: str | None, as_json: bool) -> None:
    """Compare DIR with what is published of MVTec AD, VisA, DAGM 2007, MPDD or magnetic tiles.

    DIR is a whole set, unpacked, or the folder of one category. Fails if
    something is missing, cut short or too many.

    \b
      diffusionad datasets check data/VisA
      diffusionad datasets check data/mvtec_bottle --category bottle
    """
    import json

    from diffusionad_training.data.completeness import check as compare
    from diffusionad_training.errors import DataError

    checked = compare(folder, category=category)
    if as_json:
        click.echo(json.dumps(_document(checked), indent=2))
    else:
        _print(checked)
    if not checked.is_whole:
        faulty = [one.category for one in checked.categories if not one.is_whole]
        raise DataError(
            f"{folder}: not the whole of {checked.published.title}: "
            f"{', '.join([*faulty, *checked.missing])}; fetch what is named above again from "
            f"{checked.published.source}"
        )


def _document(checked: SetCheck) -> dict[str, object]:
    return {
        "set": checked.published.title,
        "whole": checked.is_whole,
        "missing": checked.missing,
        "categories": {
            one.category: {
                "counts": {
                    count.kind: {"found": count.found, "published": count.published}
                    for count in one.counts
                },
                "faults": one.faults,
            }
            for one in checked.categories
        },
    }


def _print(checked: SetCheck) -> None:
    from diffusionad_client.tables import print_table

    rows = [
        (
            one.category,
            count.kind,
            str(count.found),
            "unknown" if count.published is None else str(count.published),
        )
        for one in checked.categories
        for count in one.counts
    ]
    click.echo(checked.published.title)
    print_table(("category", "images", "found", "published"), rows, numbers=2)
    for one in checked.categories:
        for fault in one.faults:
            click.echo(f"{one.category}: {fault}")
    for name in checked.missing:
        click.echo(f"{name}: missing altogether")
    if checked.is_whole:
        click.echo("Whole.")
