"""`diffusionad release verify`."""

from __future__ import annotations

from pathlib import Path

import click

from diffusionad_tools.commands.release import options


@click.command()
@options.repository
@options.trusted_keys
def verify(repository: Path, trusted_keys: tuple[Path, ...]) -> None:
    """Hold what a repository serves against what was published, before a server loads it.

    Files alone, in seconds: every graph against its release's digest, and with
    --trusted-key each release against its signature. `diffusionad serve --verify` does the
    same; this is for other servers. Exits with 1, and names them, if any differs.

    \b
    Example:
      diffusionad release verify --repository model_repository --trusted-key release.key.pub
    """
    from diffusionad_tools.release.keys import read_trusted_keys
    from diffusionad_tools.release.verify import verified

    click.echo(verified(repository, read_trusted_keys(trusted_keys)))
