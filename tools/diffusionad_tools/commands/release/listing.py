"""`diffusionad release list`."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffusionad_tools.commands.release import options

if TYPE_CHECKING:
    from diffusionad_tools.release.repository import Release


@click.command(name="list")
@options.repository
@options.as_json
def list_releases(repository: Path, as_json: bool) -> None:
    """List the releases in a repository and which of them is served.

    The time of publishing is that of a file, which copying may have changed.
    """
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
        "served_before": release.served_before,
        "published": _published(release, timezone.utc).isoformat(),
        "release": metadata.release,
        "contract": metadata.contract,
        "preset": metadata.preset,
        "size": metadata.size,
        "accept": metadata.thresholds.accept,
        "reject": metadata.thresholds.reject,
        "pixel": metadata.pixel_threshold,
        "precision": metadata.precision.value,
        "roi": metadata.roi,
        "steps": {step.value: version for step, version in release.step_versions.items()},
    }


def _print_table(found: list[Release]) -> None:
    from diffusionad_client.tables import print_table

    headings = ("category", "version", "served", "release", "published")
    print_table((*headings, "size", "accept <", "reject >="), map(_row, found), numbers=3)


def _row(release: Release) -> tuple[str, ...]:
    metadata = release.metadata
    limits = metadata.thresholds
    return (
        *(metadata.category, str(release.version), "yes" if release.served else ""),
        *(metadata.release[:12], f"{_published(release):%Y-%m-%d %H:%M}", str(metadata.size)),
        *(f"{limits.accept:.4f}", f"{limits.reject:.4f}"),
    )


def _published(release: Release, zone: timezone | None = None) -> datetime:
    return datetime.fromtimestamp(release.published, timezone.utc).astimezone(zone)
