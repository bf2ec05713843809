"""`diffusionad models`: which categories a server serves, from which releases."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from diffusionad_client.commands.options import json_option, timeout_option, url_option


@click.command()
@url_option
@timeout_option
@json_option
def models(url: str, timeout: float, as_json: bool) -> None:
    """List the categories that a server has ready, with their releases and thresholds."""
    from rich.console import Console
    from rich.table import Table

    from diffusionad_client.client import Client

    with Client(url, timeout=timeout) as client:
        served = client.models()
    if as_json:
        click.echo(json.dumps([asdict(model) for model in served], indent=2))
        return
    if not served:
        click.echo(f"{url} serves no category that is ready.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "version", "release", "preset"):
        table.add_column(heading, no_wrap=True)
    for heading in ("size", "accept", "reject"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in served:
        metadata = model.metadata
        limits = metadata.thresholds
        table.add_row(
            *(model.model, model.version, metadata.release[:12], metadata.preset),
            *(str(metadata.size), f"{limits.accept:.4f}", f"{limits.reject:.4f}"),
        )
    Console(highlight=False, markup=False).print(table)
