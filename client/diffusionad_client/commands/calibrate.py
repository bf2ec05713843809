"""`diffusionad calibrate`: thresholds from the results of parts whose state is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.commands.options import Number, json_option

if TYPE_CHECKING:
    from diffusionad_client.artifacts.metadata import Calibration, Thresholds
    from diffusionad_client.scoring.labelled import Labelled

_RATE = Number(0, 1, min_open=True, max_open=True)


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--good",
    multiple=True,
    metavar="PATTERN",
    help="Images of good parts, by name.  [default: all that --defects does not name]",
)
@click.option(
    "--defects",
    multiple=True,
    metavar="PATTERN",
    help="Images of defective parts, by name; then they set a threshold too.",
)
@click.option(
    "--false-reject-rate",
    type=_RATE,
    default=0.01,
    show_default=True,
    help="Share of good parts that may be NG.",
)
@click.option(
    "--review-rate",
    type=_RATE,
    default=0.05,
    show_default=True,
    help="Share of good parts that may be REVIEW or NG; not used with --defects.",
)
@click.option(
    "--miss-rate",
    type=_RATE,
    default=0.01,
    show_default=True,
    help="With --defects: share of defective parts that may be OK.",
)
@json_option
def calibrate(
    results: Path,
    good: tuple[str, ...],
    defects: tuple[str, ...],
    false_reject_rate: float,
    review_rate: float,
    miss_rate: float,
    as_json: bool,
) -> None:
    """Set thresholds anew from RESULTS, the output folder of `diffusionad score`.

    Score parts from the line that are known to be good, a few hundred if you
    can. Patterns are a shell's, on the names in the results; * takes / too.
    With `score --save-maps` the pixel threshold is set as well.

    \b
      diffusionad calibrate results --false-reject-rate 0.005
      diffusionad calibrate results --good 'good/*' --defects 'scratch/*' --miss-rate 0.02
    """
    from diffusionad_client.artifacts import calibration
    from diffusionad_client.scoring.labelled import read_labelled

    labelled = read_labelled(results, good=good or ("*",), defects=defects)
    if defects:
        thresholds, achieved = calibration.calibrate_with_defects(
            labelled.good,
            labelled.defective,
            false_reject_rate=false_reject_rate,
            miss_rate=miss_rate,
        )
    else:
        thresholds, achieved = calibration.calibrate(
            labelled.good, false_reject_rate=false_reject_rate, review_rate=review_rate
        )
    pixel = None
    if labelled.good_pixel_levels:
        pixel = calibration.threshold_for(labelled.good_pixel_levels, false_reject_rate)
    if achieved.warning:
        click.echo(f"Warning: {achieved.warning}", err=True)
    if as_json:
        click.echo(json.dumps(_document(labelled, thresholds, achieved, pixel), indent=2))
    else:
        _print(labelled, thresholds, achieved, pixel)


def _document(
    labelled: Labelled, thresholds: Thresholds, achieved: Calibration, pixel: float | None
) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "model": labelled.model,
        "release": labelled.release,
        **asdict(thresholds),
        "pixel_threshold": pixel,
        "calibration": asdict(achieved),
    }


def _print(
    labelled: Labelled, thresholds: Thresholds, achieved: Calibration, pixel: float | None
) -> None:
    from collections import Counter

    click.echo(
        f"{labelled.model}, release {labelled.release}: {len(labelled.good)} good and "
        f"{len(labelled.defective)} defective images"
    )
    if labelled.other or labelled.failed:
        click.echo(
            f"Left out: {labelled.other} that no pattern names, {labelled.failed} without a score"
        )
    for state, scores in (("good", labelled.good), ("defective", labelled.defective)):
        if scores:
            counts = Counter(str(thresholds.verdict(score)) for score in scores)
            shares = (f"{name} {counts[name] / len(scores):.1%}" for name in ("OK", "REVIEW", "NG"))
            click.echo(f"Of the {state}: {', '.join(shares)}")
    click.echo(f"True false-reject rate at most {achieved.false_reject_bound:.1%} (95% confidence)")
    if achieved.miss_bound is not None:
        click.echo(f"True miss rate at most {achieved.miss_bound:.1%} (95% confidence)")
    click.echo(f"accept below  {thresholds.accept!r}")
    click.echo(f"reject from   {thresholds.reject!r}")
    if pixel is None:
        click.echo("The pixel threshold stays the release's: no maps (`score --save-maps`)")
    else:
        click.echo(f"pixels from   {pixel!r}")
    click.echo(
        "Next, for one run: diffusionad score ... "
        f"--accept {thresholds.accept!r} --reject {thresholds.reject!r}"
    )
