"""`diffusionad release add`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_tools.commands.release import options, servers
from diffusionad_tools.release.prune import KEEP

if TYPE_CHECKING:
    from diffusionad_tools.release.procedure import Procedure
    from diffusionad_tools.release.rollout import RollOut


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@options.repository
@click.option("--name", help="Install it under this category. [default: the bundle's]")
@click.option(
    "--encoded/--no-encoded",
    default=True,
    show_default=True,
    help="Also serve image files, as CATEGORY__encoded. The server then needs Pillow.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=KEEP,
    show_default=True,
    help="Releases of the category to keep: the served one, those served before it, the newest.",
)
@click.option(
    "--cores",
    type=click.IntRange(min=1),
    help="Cores of the CPU hosts that will serve it: of a new category, configs/cpu.pbtxt runs the "
    "networks once for each, up to 8. [default: this machine's]",
)
@options.ready_timeout
@servers.rolls_out
def add(
    bundle: Path,
    repository: Path,
    name: str | None,
    encoded: bool,
    cores: int | None,
    keep: int,
    ready_timeout: float,
    rollout: RollOut,
    procedure: Procedure,
    as_json: bool,
) -> None:
    """Add the release in BUNDLE, if a server agrees with the answers of its training.

    BUNDLE is a folder from `diffusionad export`. It is served on an embedded
    Triton and asked for its reference images first; nothing is published
    unless scores and maps agree. With --name, a candidate stands beside the
    category that is served. Running servers that are named with --url load it.

    \b
    Examples:
      diffusionad release add bundles/screw --repository model_repository
      diffusionad release add bundles/new --name screw-candidate --repository model_repository
    """
    from diffusionad_tools.release.add import add_release

    result = add_release(
        bundle,
        repository,
        lambda line: click.echo(line, err=True),
        name=name,
        encoded=encoded,
        cores=cores or len(os.sched_getaffinity(0)),
        keep=keep,
        ready_timeout=ready_timeout,
        procedure=procedure,
    )
    added = f"{result.metadata.category} version {result.version}"
    said = f"Added {added}, release {result.metadata.release}, to {repository}"
    if not result.added:
        said = (
            f"Nothing to add: release {result.metadata.release} is served already from "
            f"{repository}, as {added}"
        )
    if result.pruned:
        gone = ", ".join(map(str, result.pruned))
        click.echo(f"Removed because of --keep {keep}: version {gone}", err=True)
    category = result.metadata.category
    servers.finish(rollout, category, said, as_json=as_json, added=result.added)
