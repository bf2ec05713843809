"""The servers of a repository in `diffusionad release`: their options, how they took a change."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from diffusionad_client.commands.connecting import split_urls, take_reach, with_reach
from diffusionad_client.commands.options import SECONDS
from diffusionad_client.local_server import STARTUP_S
from diffusionad_tools.commands.release import options
from diffusionad_tools.folders import passing_over, strays
from diffusionad_tools.release.keys import read_trusted_keys
from diffusionad_tools.release.procedure import Procedure
from diffusionad_tools.release.repository import find_release
from diffusionad_tools.release.rollout import Fleet, RollOut

_url = click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="HOST:PORT",
    help="A running server with explicit model control that is told to load it. Of several, with "
    "commas or repeated. Never taken from the environment.",
)
_load_timeout = click.option(
    "--load-timeout",
    type=SECONDS,
    default=STARTUP_S,
    show_default=True,
    help="Seconds for a running server to load it.",
)


def rolls_out(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that changes `repository` a `rollout` and a `procedure`, and their options."""

    @options.trusted_keys
    @options.wait
    @options.settle
    @_url
    @with_reach
    @_load_timeout
    @options.as_json
    @functools.wraps(command)
    def with_servers(
        *args: Any,
        repository: Path,
        urls: tuple[str, ...],
        load_timeout: float,
        wait: float,
        settle: float,
        trusted_keys: tuple[Path, ...],
        **others: Any,
    ) -> None:
        reach = take_reach(others)
        named = split_urls(urls)
        fleet = Fleet(reach.connection(named, load_timeout) if named else None)
        rollout = RollOut(repository, fleet)
        trusted = read_trusted_keys(trusted_keys)
        procedure = Procedure(wait=wait, settle=settle, on_switch=rollout, trusted=trusted)
        command(*args, repository=repository, rollout=rollout, procedure=procedure, **others)

    return with_servers


def finish(rollout: RollOut, category: str, said: str, *, as_json: bool, **about: Any) -> None:
    """Finish a roll-out and tell of it; exit with 1 if a server does not serve the release.

    `said` is what the folder's change is to a reader, `about` what it is to a program.
    """
    if not as_json:
        click.echo(said)
    tell_of_strays(rollout.repository)
    rollout.finish(category)
    release = find_release(rollout.repository, category)
    if as_json:
        document = {
            "category": category,
            "version": release.version,
            "release": release.metadata.release,
            **about,
            "servers": [{**asdict(s), "agrees": s.agrees} for s in rollout.servers],
        }
        click.echo(json.dumps(document, indent=2))
    elif rollout.servers:
        _print_table(rollout)
    if not rollout.complete:
        behind = sum(not server.agrees for server in rollout.servers)
        raise click.ClickException(
            f"{behind} of {len(rollout.servers)} servers do not serve {category} version "
            f"{release.version}; its steps go on serving the previous release too. Repair those "
            f"servers and run `diffusionad release promote {category} {release.version}` with "
            "the same --url"
        )


def tell_of_strays(repository: Path) -> None:
    """Name, on standard error, what lies in a repository and is no model."""
    if left := strays(repository):
        click.echo(passing_over(left), err=True)


def _print_table(rollout: RollOut) -> None:
    from diffusionad_client.tables import print_table

    rows = [
        (
            *(server.url, "yes" if server.agrees else "NO", server.version or ""),
            *(
                (server.release or "")[:12],
                ", ".join(map(str, dict.fromkeys(server.steps.values()))),
            ),
            server.problem or "",
        )
        for server in rollout.servers
    ]
    print_table(("server", "serves it", "version", "release", "steps", "problem"), rows, numbers=0)
