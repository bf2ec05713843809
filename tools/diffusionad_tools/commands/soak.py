"""`diffusionad soak`: hours of mixed load on an embedded Triton."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.commands.options import SECONDS, Number, json_option

if TYPE_CHECKING:
    from diffusionad_tools.soak.run import SoakReport


@click.command()
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--repository", required=True, type=click.Path(path_type=Path), help="Models; it is copied."
)
@click.option("--model", metavar="CATEGORY", help="[default: the repository's only one]")
@click.option(
    "--minutes",
    type=Number(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long, without the golden run before.",
)
@click.option(
    "--promote-every",
    type=SECONDS,
    default=300.0,
    show_default=True,
    help="Seconds between two changes of the release.",
)
@click.option(
    "--restart-every",
    type=SECONDS,
    default=600.0,
    show_default=True,
    help="Seconds between two restarts of the server.",
)
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write it here, as JSON."
)
@json_option
def soak(
    images: Path,
    repository: Path,
    model: str | None,
    minutes: float,
    promote_every: float,
    restart_every: float,
    report: Path | None,
    as_json: bool,
) -> None:
    """Soak a server: score IMAGES for hours while releases change and the server restarts.

    A copy of the repository is served, and asked for every image under two
    releases first. Then parts inline, whole folders, and files that are no
    images are sent all at once. Exits with 1 if a score was wrong, an image
    lost, or memory grew.

    \b
    Example:
      diffusionad soak images/test --repository model_repository --minutes 60
    """
    from diffusionad_client.errors import SourceError
    from diffusionad_client.files import write_aside
    from diffusionad_client.folders import find_images
    from diffusionad_tools.soak.run import SoakSettings
    from diffusionad_tools.soak.run import soak as run

    settings = SoakSettings(
        seconds=minutes * 60, promote_every=promote_every, restart_every=restart_every
    )
    found = [Path(path) for path in find_images(images)]
    if not found:
        raise SourceError(f"{images}: no image is in this folder; give one that has some")
    result = run(repository, found, settings, partial(click.echo, err=True), category=model)
    document = json.dumps(result.to_document(), indent=2)
    if report is not None:
        write_aside(report, f"{document}\n".encode())
    if as_json:
        click.echo(document)
    else:
        _print(result)
    if not result.kept:
        raise click.exceptions.Exit(1)


def _print(report: SoakReport) -> None:
    from diffusionad_client.tables import print_table

    click.echo(f"{report.seconds / 60:.1f} minutes")
    counted = {**report.counts, **{f"{kind}: BROKEN": n for kind, n in report.broken.items()}}
    rows = [(what, str(count)) for what, count in counted.items()]
    print_table(("what", "times"), rows, numbers=1)
    memory = [
        (kind, f"{g.median_mib:.0f}", f"{g.mib_per_hour:+.1f}", "yes" if g.flat else "NO")
        for kind, g in report.memory.items()
    ]
    print_table(("memory of", "MiB", "MiB/hour", "flat"), memory, numbers=0)
    for kind, examples in report.examples.items():
        for example in examples:
            click.echo(f"{kind}: {example}", err=True)
    click.echo("Every promise was kept." if report.kept else "A promise was broken.")
