"""`diffusionad release list`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffusionad_tools.commands.release import options

if TYPE_CHECKING:
    from diffusionad_tools.release.keys import TrustedKeys
    from diffusionad_tools.release.repository import Release


@click.command(name="list")
@options.repository
@options.trusted_keys_to_show
@options.as_json
def list_releases(repository: Path, trusted_keys: tuple[Path, ...], as_json: bool) -> None:
    """List the releases in a repository, which of them is served, and who signed them.

    The time of publishing is that of a file, which copying may have changed. Who signed is
    what a release says of itself, unless --trusted-key has it verified; the graphs are held
    against what was signed by `release verify` and `serve`.

    \b
    Examples:
      diffusionad release list --repository model_repository
      diffusionad release list --repository model_repository --trusted-key release.key.pub
    """
    from diffusionad_tools.release.keys import read_trusted_keys
    from diffusionad_tools.release.repository import categories, releases

    trusted = read_trusted_keys(trusted_keys)
    found = [
        Listed(release, *_signature(repository, release, trusted))
        for name in categories(repository)
        for release in releases(repository, name)
    ]
    if as_json:
        click.echo(json.dumps([_as_dict(each, trusted) for each in found], indent=2))
        return
    if found:
        _print_table(found)
    else:
        click.echo(f"{repository}: no releases", err=True)
    for each in found:
        for problem in each.problems:
            click.echo(problem, err=True)


@dataclass(frozen=True)
class Listed:
    """A release, and what there is to say of its signature."""

    release: Release
    signed_by: str | None  # a key's fingerprint
    problems: list[str]


def _signature(
    repository: Path, release: Release, trusted: TrustedKeys | None
) -> tuple[str | None, list[str]]:
    from diffusionad_tools.errors import SignatureError
    from diffusionad_tools.release.signatures import signature_problems, signer

    try:
        signed_by = signer(repository, release)
    except SignatureError as exc:  # the other releases are listed all the same
        return None, [str(exc)]
    problems = [] if trusted is None else list(signature_problems(repository, release, trusted))
    return signed_by, problems


def _as_dict(listed: Listed, trusted: TrustedKeys | None) -> dict[str, Any]:
    release = listed.release
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
        "signed_by": listed.signed_by,
        "signature_verified": None if trusted is None else not listed.problems,
        "signature_problems": listed.problems,
    }


def _print_table(found: list[Listed]) -> None:
    from diffusionad_client.tables import print_table

    headings = ["category", "version", "served", "release", "published"]
    rows = [_row(each.release) for each in found]
    if any(each.signed_by or each.problems for each in found):
        place = len(headings)
        headings.insert(place, "signed by")
        for row, each in zip(rows, found, strict=True):
            row.insert(place, _whose(each))
    print_table((*headings, "size", "accept <", "reject >="), rows, numbers=3)


def _whose(listed: Listed) -> str:
    name = listed.signed_by or "nobody"
    return f"{name} (see below)" if listed.problems else name


def _row(release: Release) -> list[str]:
    metadata = release.metadata
    limits = metadata.thresholds
    return [
        *(metadata.category, str(release.version), "yes" if release.served else ""),
        *(metadata.release[:12], f"{_published(release):%Y-%m-%d %H:%M}", str(metadata.size)),
        *(f"{limits.accept:.4f}", f"{limits.reject:.4f}"),
    ]


def _published(release: Release, zone: timezone | None = None) -> datetime:
    return datetime.fromtimestamp(release.published, timezone.utc).astimezone(zone)
