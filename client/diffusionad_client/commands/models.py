"""`diffusionad models`: a server's categories, and which of them it has loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from diffusionad_client.commands.options import json_option
from diffusionad_client.commands.server import ServerChoice, reaches_server

if TYPE_CHECKING:
    from diffusionad_client.sdk.catalogue import Catalogue, IdleModel
    from diffusionad_client.sdk.served import ServedModel

_LOAD_S = 600.0  # warming up a large model on a CPU takes minutes


@click.group(invoke_without_command=True)
@reaches_server()
@json_option
@click.pass_context
def models(ctx: click.Context, server: ServerChoice, as_json: bool) -> None:
    """List the categories of a server, with their releases, thresholds and states.

    One that cannot be used is listed with the reason. A server with explicit
    model control lists and loads them for the holder of its admin key only.

    \b
      diffusionad models --url triton:8001
      diffusionad models load screw --url triton:8001 --admin-key-file admin.key
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options_before(ctx, ctx.invoked_subcommand)
        return
    from diffusionad_client.sdk.client import Client

    with Client(server.connection) as client:
        catalogue = client.catalogue()
    if as_json:
        click.echo(json.dumps(_documents(catalogue), indent=2))
    else:
        _print(server.connection.address, catalogue)


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@reaches_server(timeout=_LOAD_S, timeout_help="How long it may take.")
def load(names: tuple[str, ...], server: ServerChoice) -> None:
    """Load categories, or load them anew as they stand in the server's repository now."""
    from diffusionad_client.sdk.client import Client

    with Client(server.connection) as client:
        for name in names:
            served = client.load(name)
            release = f"version {served.version}, release {served.metadata.release}"
            click.echo(f"{server.connection.address} serves {name} {release}")


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@reaches_server()
def unload(names: tuple[str, ...], server: ServerChoice) -> None:
    """Unload categories; what is under way is answered still."""
    from diffusionad_client.sdk.client import Client

    with Client(server.connection) as client:
        for name in names:
            client.unload(name)
            click.echo(f"{server.connection.address} no longer serves {name}")


def _refuse_options_before(ctx: click.Context, command: str) -> None:
    """Refuse options of the list in front of another command, which would not see them."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"give {parameter.opts[0]} after `models {command}`")


def _documents(catalogue: Catalogue) -> list[dict[str, Any]]:
    return [
        *(
            {**asdict(m), "metadata": m.metadata.to_document(), "state": "READY"}
            for m in catalogue.served
        ),
        *(
            {"model": m.model, "version": m.version, "state": "READY", "error": str(m.reason)}
            for m in catalogue.refused
        ),
        *(asdict(model) for model in catalogue.idle),
    ]


def _print(url: str, catalogue: Catalogue) -> None:
    from diffusionad_client.tables import print_table

    if not catalogue.names:
        click.echo(f"{url} serves no category that is ready.")
    rows = [*map(_served_row, catalogue.served), *map(_idle_row, catalogue.idle)]
    if rows:
        headings = (
            *("model", "state", "version", "release", "preset", "precision", "ROI"),
            *("size", "accept", "reject"),
        )
        print_table(headings, rows, numbers=3)
    for refused in catalogue.refused:
        click.echo(f"Cannot be used: {refused.reason}")
    for idle in catalogue.idle:
        if idle.reason:
            click.echo(f"{idle.model}: {idle.reason}")


def _served_row(model: ServedModel) -> tuple[str, ...]:
    metadata = model.metadata
    limits = metadata.thresholds
    return (
        *(model.model, "READY", model.version, metadata.release[:12], metadata.preset),
        *(str(metadata.precision), metadata.roi[:12] if metadata.roi else "-"),
        *(str(metadata.size), f"{limits.accept:.4f}", f"{limits.reject:.4f}"),
    )


def _idle_row(model: IdleModel) -> tuple[str, ...]:
    return (model.model, model.state.lower().replace("_", " "), *[""] * 8)
