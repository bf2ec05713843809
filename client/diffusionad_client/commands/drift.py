"""`diffusionad drift`: have the scores of a run moved from those of an earlier one?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.cli import EXIT_FOUND
from diffusionad_client.commands.options import Number, calibrated_to, json_option

if TYPE_CHECKING:
    from diffusionad_client.drift.compare import Drift
    from diffusionad_client.drift.shifts import Shift


@click.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--fail-above",
    type=Number(min=0, min_open=True),
    metavar="PSI",
    help=f"Exit with {EXIT_FOUND} if the scores moved further than that; 0.25 is a usual limit.",
)
@click.option(
    "--by",
    "fields",
    multiple=True,
    metavar="FIELD",
    help="Also compare each group of a field, such as lot or folder.  [default: all fields that "
    "score was given]",
)
@calibrated_to
@json_option
@click.pass_context
def drift(
    ctx: click.Context,
    *,
    baseline: Path,
    results: Path,
    fail_above: float | None,
    fields: tuple[str, ...],
    false_reject_rate: float | None,
    review_rate: float | None,
    as_json: bool,
) -> None:
    """Tell whether the scores in RESULTS have moved from those in BASELINE.

    Both are output folders of `diffusionad score`. Compared are all scores,
    each group, and each stretch of time, by the population stability index
    (PSI) and the test of Kolmogorov and Smirnov (KS); then it is said whether
    the thresholds still turn away as many parts. Where too few images were
    scored to tell drift from chance, that is said, and nothing fails.

    \b
      diffusionad drift results/january results/today --fail-above 0.25
      diffusionad drift results/january results/today --by lot --json
    """
    from diffusionad_client.drift.compare import compare_folders
    from diffusionad_client.drift.meaning import Asked
    from diffusionad_client.drift.shifts import LIMIT, Status
    from diffusionad_client.scoring.results import check_results

    for folder in (baseline, results):
        check_results(folder)
    found = compare_folders(
        baseline,
        results,
        limit=LIMIT if fail_above is None else fail_above,
        fields=fields or None,
        asked=Asked(false_reject_rate=false_reject_rate, review_rate=review_rate),
    )
    if as_json:
        click.echo(json.dumps(found.document(), indent=2, allow_nan=False))
    else:
        _print(found)
    if fail_above is not None and found.status is Status.DRIFTED:
        ctx.exit(EXIT_FOUND)


def _print(found: Drift) -> None:
    from diffusionad_client.tables import print_table

    for note in found.notes:
        click.echo(f"Note: {note}")
    print_table(
        ("compared", "by", "status", "images", "against", "PSI", "by chance", "KS", "p", "median"),
        [_row(kind, shift) for kind, shift in _shifts(found)],
        numbers=7,
    )
    for meaning in found.meanings:
        click.echo(meaning.sentence)
    click.echo(found.sentence)


def _shifts(found: Drift) -> Iterator[tuple[str, Shift]]:
    yield found.parts, found.overall
    for name, shifts in found.fields.items():
        yield from ((name, shift) for shift in shifts)
    yield from (("time", shift) for shift in found.over_time)


def _row(kind: str, shift: Shift) -> tuple[str, ...]:
    numbers = (
        (shift.psi, ".3f"), (shift.chance, ".3f"), (shift.ks, ".3f"), (shift.p, ".2g"),
        (shift.median, ".4f"),
    )  # fmt: skip
    return (
        kind,
        shift.name,
        shift.status.value,
        f"{shift.images:,}",
        f"{shift.baseline:,}",
        *("-" if number is None else format(number, form) for number, form in numbers),
    )
