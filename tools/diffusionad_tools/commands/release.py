"""`diffusionad release`: what a model repository holds, and how a release gets into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffusionad_client.local_server import STARTUP_S

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
@click.option(
    "--ready-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=STARTUP_S,
    show_default=True,
    help="Seconds for the bundle's models to load.",
)
def add(bundle: Path, repository: Path, ready_timeout: float) -> None:
    """Add the release in BUNDLE, if a server agrees with the answers of its training.

    BUNDLE is a folder from `diffusionad export`. It is served on an embedded
    Triton and asked for its reference images first; nothing is published
    unless scores and maps agree.

    \b
    Example:
      diffusionad release add bundles/screw --repository model_repository
    """
    from diffusionad_tools.release.add import add_release

    result = add_release(
        bundle, repository, lambda line: click.echo(line, err=True), ready_timeout=ready_timeout
    )
    name = f"{result.metadata.category} version {result.version}"
    if result.added:
        click.echo(f"Added {name}, release {result.metadata.release}, to {repository}")
    else:
        click.echo(
            f"Nothing to add: release {result.metadata.release} is served already from "
            f"{repository}, as {name}"
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
    from diffusionad_client.tables import print_table

    headings = ("category", "version", "served", "release", "size", "accept <", "reject >=")
    print_table(headings, map(_row, found), numbers=3)


def _row(release: Release) -> tuple[str, ...]:
    metadata = release.metadata
    limits = metadata.thresholds
    return (
        *(metadata.category, str(release.version), "yes" if release.served else ""),
        *(metadata.release[:12], str(metadata.size)),
        *(f"{limits.accept:.4f}", f"{limits.reject:.4f}"),
    )
