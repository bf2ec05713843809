"""`diffusionad release promote`, `rollback` and `thresholds`: what a repository serves changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_tools.commands.release import options, servers

if TYPE_CHECKING:
    from diffusionad_tools.release.procedure import Procedure
    from diffusionad_tools.release.promote import Switched
    from diffusionad_tools.release.rollout import RollOut


@click.command()
@click.argument("category")
@click.argument("version", type=click.IntRange(min=1))
@options.repository
@servers.rolls_out
def promote(
    category: str,
    version: int,
    repository: Path,
    rollout: RollOut,
    procedure: Procedure,
    as_json: bool,
) -> None:
    """Serve VERSION of CATEGORY from now on.

    A running server does not notice until it reads the repository again. Name every server with
    --url, and each is told to. Exits with 1 if one of them does not serve VERSION afterwards.

    \b
    Example:
      diffusionad release promote screw 3 --repository model_repository
        --url line1:8001 --url line2:8001 --admin-key-file admin.key
    """
    from diffusionad_tools.release.promote import promote as switch

    result = switch(repository, category, version, procedure)
    _tell(result, rollout, as_json)


@click.command()
@click.argument("category")
@click.option("--to", type=click.IntRange(min=1), help="Version. [default: the one served before]")
@options.repository
@servers.rolls_out
def rollback(
    category: str,
    to: int | None,
    repository: Path,
    rollout: RollOut,
    procedure: Procedure,
    as_json: bool,
) -> None:
    """Serve the release of CATEGORY that was served before. Rolling back twice goes back by two.

    \b
    Example:
      diffusionad release rollback screw --repository model_repository
    """
    from diffusionad_tools.release.promote import rollback as switch

    result = switch(repository, category, to, procedure)
    _tell(result, rollout, as_json)


@click.command()
@click.argument("category")
@options.repository
@click.option("--accept", type=float, help="OK below this score. [default: as it is]")
@click.option("--reject", type=float, help="NG from this score on. [default: as it is]")
@click.option("--pixel", type=float, help="Defect from this value of the map on.")
@options.signing_key
@servers.rolls_out
def thresholds(
    category: str,
    repository: Path,
    accept: float | None,
    reject: float | None,
    pixel: float | None,
    key_file: Path | None,
    rollout: RollOut,
    procedure: Procedure,
    as_json: bool,
) -> None:
    """Release CATEGORY with other thresholds, on the same graphs.

    \b
    Example:
      diffusionad release thresholds screw --accept 0.3 --reject 0.5 --repository model_repository
    """
    from diffusionad_tools.release.keys import read_signing_key
    from diffusionad_tools.release.thresholds import set_thresholds

    key = None if key_file is None else read_signing_key(key_file)
    result = set_thresholds(
        repository,
        category,
        accept=accept,
        reject=reject,
        pixel=pixel,
        procedure=replace(procedure, key=key),
    )
    _tell(result, rollout, as_json)


def _tell(switched: Switched, rollout: RollOut, as_json: bool) -> None:
    metadata, limits = switched.release.metadata, switched.release.metadata.thresholds
    repository = rollout.repository
    now = f"{metadata.category} version {switched.release.version}, release {metadata.release}"
    said = f"Nothing to change: {repository} serves {now} already"
    if switched.changed:
        said = (
            f"{repository} serves {now} (before: version {switched.before.version}): OK below "
            f"{limits.accept:.4f}, NG from {limits.reject:.4f} on"
        )
    before = switched.before.version
    servers.finish(rollout, metadata.category, said, as_json=as_json, before=before)
