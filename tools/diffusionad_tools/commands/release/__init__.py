"""`diffusionad release`: what a model repository holds and serves, and how that changes."""

from __future__ import annotations

import click

from diffusionad_client.cli import WholeSummaries
from diffusionad_tools.commands.release.add import add
from diffusionad_tools.commands.release.changes import promote, rollback, thresholds
from diffusionad_tools.commands.release.compare import compare
from diffusionad_tools.commands.release.listing import list_releases
from diffusionad_tools.commands.release.signing import keygen, sign
from diffusionad_tools.commands.release.validate import validate
from diffusionad_tools.commands.release.verify import verify


@click.group(cls=WholeSummaries)
def release() -> None:
    """Add releases to a model repository, choose which is served, list, compare and check them."""


for command in (
    *(add, compare, keygen, list_releases, promote, rollback, sign, thresholds, validate),
    verify,
):
    release.add_command(command)
