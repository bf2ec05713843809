"""`diffusionad models`: which categories a server serves, from which releases."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from diffusionad_client.commands.options import json_option, timeout_option, url_option

if TYPE_CHECKING:
    from diffusionad_client.releases import ServedModel


@click.command()
@url_option
@timeout_option
@json_option
def models(url: str, timeout: float, as_json: bool) -> None:
    """List the categories that a server has ready, with their releases and thresholds.

    One that this client cannot use is listed with the reason.
    """
    from diffusionad_client.client import Client
    from diffusionad_client.tables import print_table

    with Client(url, timeout=timeout) as client:
        found = client.catalogue()
    if as_json:
        refused = [
            {"model": model.model, "version": model.version, "error": str(model.reason)}
            for model in found.refused
        ]
        click.echo(json.dumps([*map(asdict, found.served), *refused], indent=2))
        return
    if not found.names:
        click.echo(f"{url} serves no category that is ready.")
    if found.served:
        headings = ("model", "version", "release", "preset", "size", "accept", "reject")
        print_table(headings, map(_row, found.served), numbers=3)
    for model in found.refused:
        click.echo(f"Cannot be used: {model.reason}")


def _row(model: ServedModel) -> tuple[str, ...]:
    metadata = model.metadata
    limits = metadata.thresholds
    return (
        *(model.model, model.version, metadata.release[:12], metadata.preset),
        *(str(metadata.size), f"{limits.accept:.4f}", f"{limits.reject:.4f}"),
    )
