"""`diffusionad release`: what a model repository holds, and how a release gets into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from diffusionad_tools.release.repository import Release

_REPOSITORY = click.option(
    "--repository",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Model repository.",
)


@click.group()
def release() -> None:
    """Add releases to a model repository, and list them."""


@release.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@_REPOSITORY
def add(bundle: Path, repository: Path) -> None:
    """Add the release in BUNDLE, if a server agrees with the answers of its training.

    BUNDLE is a folder from `diffusionad export`. It is served on an embedded
    Triton and asked for its reference images first; nothing is published
    unless scores and maps agree.

    \b
    Example:
      diffusionad release add bundles/screw --repository model_repository
    """
    from diffusionad_tools.release.add import add_release

    result = add_release(bundle, repository, lambda line: click.echo(line, err=True))
    name = f"{result.metadata.category} version {result.version}"
    if result.added:
        click.echo(f"Added {name}, release {result.metadata.release}, to {repository}")
    else:
        click.echo(
            f"Nothing to add: release {result.metadata.release} is the newest in {repository} "
            f"already, as {name}"
        )


@release.command(name="list")
@_REPOSITORY
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one array of releases.")
def list_releases(repository: Path, as_json: bool) -> None:
    """List the releases in a repository and which of them is served."""
    from diffusionad_tools.release.repository import categories, releases

    found = [r for name in categories(repository) for r in releases(repository, name)]
    if as_json:
        click.echo(json.dumps([_as_dict(r) for r in found], indent=2))
    elif found:
        _print_table(found)
    else:
        click.echo(f"{repository}: no releases", err=True)


def _as_dict(release: Release) -> dict[str, Any]:
    metadata = release.metadata
    return {
        "category": metadata.category,
        "version": release.version,
        "served": release.served,
        "release": metadata.release,
        "preset": metadata.preset,
        "size": metadata.size,
        "accept": metadata.thresholds.accept,
        "reject": metadata.thresholds.reject,
    }


def _print_table(found: list[Release]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("category", "version", "served", "release", "size"):
        table.add_column(heading, no_wrap=True)
    table.add_column("accept <", justify="right")
    table.add_column("reject >=", justify="right")
    for r in found:
        m = r.metadata
        table.add_row(
            m.category,
            str(r.version),
            "yes" if r.served else "",
            m.release[:12],
            str(m.size),
            f"{m.thresholds.accept:.4f}",
            f"{m.thresholds.reject:.4f}",
        )
    Console(soft_wrap=True).print(table)
