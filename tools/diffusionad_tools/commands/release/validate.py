"""`diffusionad release validate`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.errors import DiffusionADError
from diffusionad_tools.commands.release import options, servers

if TYPE_CHECKING:
    from diffusionad_tools.release.validate import Check


@click.command()
@click.argument("category", required=False)
@options.repository
@options.ready_timeout
@options.as_json
def validate(category: str | None, repository: Path, ready_timeout: float, as_json: bool) -> None:
    """Check what a repository serves: CATEGORY, or all categories.

    Looks at every file, then serves each category on an embedded Triton and
    compares its answers with those that its training gave, in batches from one image to the
    largest. Exits with 1 if anything is wrong.

    \b
    Example:
      diffusionad release validate --repository model_repository
    """
    from diffusionad_tools.folders import FolderKind, kinds
    from diffusionad_tools.release.check import unreadable
    from diffusionad_tools.release.validate import names_to_validate, validate_category

    results: dict[str, list[Check]] = {}
    for name in names_to_validate(repository, category):
        click.echo(f"Validating {name} ...", err=True)
        results[name] = validate_category(repository, name, ready_timeout=ready_timeout)
        if not as_json:
            _print(name, results[name])
    servers.tell_of_strays(repository)
    foreign = [name for name, kind in kinds(repository).items() if kind is FolderKind.FOREIGN]
    if foreign:
        click.echo(f"Not looked at, because they are none of ours: {', '.join(foreign)}", err=True)
    if as_json:
        click.echo(json.dumps(_as_dict(results), indent=2))
    failed = [name for name, checks in results.items() if not all(c.passed for c in checks)]
    stopping = list(unreadable(repository)) if category is None else []
    if failed or stopping:
        lines = "".join(f"\n  {problem}" for problem in stopping)
        raise DiffusionADError(f"{repository}: not as it must be: {', '.join(failed)}{lines}")


def _print(category: str, checks: list[Check]) -> None:
    for check in checks:
        click.echo(f"{category}: {'ok    ' if check.passed else 'FAILED'} {check.what}")
        for line in check.details:
            click.echo(f"    {line}")


def _as_dict(results: dict[str, list[Check]]) -> list[dict[str, object]]:
    return [
        {
            "category": name,
            "passed": all(check.passed for check in checks),
            "checks": [dataclasses.asdict(check) for check in checks],
        }
        for name, checks in results.items()
    ]
