"""`diffusionad health`: does a server answer, and are its models ready?"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from diffusionad_client.commands.options import json_option, timeout_option, url_option


@click.command()
@url_option
@timeout_option
@json_option
@click.pass_context
def health(ctx: click.Context, url: str, timeout: float, as_json: bool) -> None:
    """Ask a server whether all of its models are ready.

    Exits with 0 if they are, with 1 if they are not or no server answers.
    """
    from diffusionad_client.sdk.client import Client

    with Client(url, timeout=timeout) as client:
        answer = client.health()
    if as_json:
        click.echo(json.dumps({"url": url, **asdict(answer)}))
    else:
        state = "ready" if answer.ready else "answers, but not all of its models are ready"
        click.echo(f"{url}: {answer.server} {answer.version}, {state}")
    ctx.exit(0 if answer.ready else 1)
