"""`diffusionad health`: does a server answer, and are its models ready?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from diffusionad_client.commands.connecting import Setting, settings_used
from diffusionad_client.commands.options import json_option
from diffusionad_client.commands.server import ServerChoice, model_option, reaches_server
from diffusionad_client.errors import DiffusionADError

if TYPE_CHECKING:
    from diffusionad_client.sdk.health import ServerHealth
    from diffusionad_client.sdk.probe import Probe


@click.command()
@reaches_server()
@click.option("--deep", is_flag=True, help="Also send an image through what the server serves.")
@click.option(
    "--allow-busy",
    is_flag=True,
    help="With --deep: take the refusal of a full queue for an answer, as a probe should.",
)
@model_option
@json_option
@click.pass_context
def health(
    ctx: click.Context,
    server: ServerChoice,
    deep: bool,
    allow_busy: bool,
    model: str | None,
    as_json: bool,
) -> None:
    """Ask a server whether all of its models are ready.

    Of several servers each is asked. A server says so even of a model whose
    process has died: --deep asks the models themselves, --model one of them.
    Says also by which settings the server was reached, and where each comes
    from. Exits with 0 if all is well, with 1 if not, or if no server answers.
    """
    from diffusionad_client.sdk.client import Client

    if ctx.get_parameter_source("model") is ParameterSource.COMMANDLINE and not deep:
        raise click.UsageError("--model goes with --deep")
    if allow_busy and not deep:
        raise click.UsageError("--allow-busy goes with --deep")
    asked = {"model": model} if deep else {}
    settings = settings_used(
        server.reach, url=list(server.servers), timeout=server.timeout, **asked
    )
    try:
        connection = server.connection
        with Client(connection) as client:
            answer = client.health()
            probes = client.probe(model) if deep else []
    except DiffusionADError:
        click.echo(_reached_by(settings), err=True)
        raise
    if as_json:
        document: dict[str, Any] = {
            "url": connection.address,
            "ready": answer.ready,
            "server": answer.server,
            "version": answer.version,
            "servers": [_of_one(server) for server in answer.servers],
            "differences": answer.differences,
            "settings": {s.name: {"value": s.value, "from": s.source} for s in settings},
        }
        if deep:
            document["probes"] = [_document(probe) for probe in probes]
        click.echo(json.dumps(document))
    else:
        for server_health in answer.servers:
            click.echo(_state(server_health))
        for difference in answer.differences:
            click.echo(f"Not the same everywhere: {difference}")
        for probe in probes:
            click.echo(_line(probe, several=len(answer.servers) > 1))
        if deep and not probes:
            click.echo("It serves no category that could be asked.")
        click.echo(_reached_by(settings))
    answered = all(probe.answers or (allow_busy and probe.is_refused) for probe in probes)
    well = answer.ready and answered and bool(probes) >= deep
    ctx.exit(0 if well else 1)


def _of_one(server: ServerHealth) -> dict[str, Any]:
    return {
        "url": server.url,
        "ready": server.ready,
        "server": server.server,
        "version": server.version,
        "releases": dict(server.releases),
        "error": None if server.error is None else str(server.error),
    }


def _state(server: ServerHealth) -> str:
    if server.error is not None and not server.version:
        return str(server.error)  # which names it
    state = "ready" if server.ready else "answers, but not all of its models are ready"
    return f"{server.url}: {server.server} {server.version}, {state}"


def _reached_by(settings: list[Setting]) -> str:
    lines = ["Reached by:"]
    for setting in settings:
        value = setting.value
        if isinstance(value, (list, dict)):
            value = ", ".join(value)
        if value is not None:
            lines.append(f"  {setting.name.replace('_', '-')} {value} ({setting.source})")
    return "\n".join(lines)


def _document(probe: Probe) -> dict[str, Any]:
    return {
        "server": probe.server,
        "model": probe.model,
        "answers": probe.answers,
        "version": probe.version,
        "release": probe.release,
        "seconds": round(probe.seconds, 4),
        "error": None if probe.error is None else str(probe.error),
    }


def _line(probe: Probe, *, several: bool) -> str:
    about = f"{probe.model} on {probe.server}" if several else probe.model
    if probe.error is not None:
        return f"{about}: does not answer: {probe.error}"
    took = f"{1000 * probe.seconds:.0f} ms"
    return f"{about}: answers in {took}, version {probe.version}, release {probe.release}"
