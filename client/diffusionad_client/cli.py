"""The one command, `diffusionad`; what is installed adds its subcommands to it.

A subcommand is a module with one click command and one line under the entry
point group `diffusionad.commands`. Nothing heavy is imported until a
subcommand runs.

Exit codes: 0 done; 1 it could not be done; 2 wrong usage; 3 done, but some
images could not be scored.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from diffusionad_client import __version__
from diffusionad_client.errors import DiffusionADError

COMMANDS = "diffusionad.commands"
EXIT_SOME_FAILED = 3

_DISTRIBUTIONS = {  # where a command lives that is not installed
    "train": "diffusionad-training",
    "evaluate": "diffusionad-training",
    "export": "diffusionad-training",
    "presets": "diffusionad-training",
    "serve": "diffusionad-tools",
    "release": "diffusionad-tools",
    "demo-data": "diffusionad-tools",
}


class InstalledCommands(click.Group):
    """A group whose commands are the installed entry points, each loaded when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the installed commands."""
        return sorted(_installed())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        entry = _installed().get(cmd_name)
        if entry is not None:
            command: click.Command = entry.load()
            return command
        if cmd_name in _DISTRIBUTIONS:
            raise click.UsageError(
                f"`diffusionad {cmd_name}` comes with {_DISTRIBUTIONS[cmd_name]}, which is not "
                f"installed here; install it with: pip install {_DISTRIBUTIONS[cmd_name]}"
            )
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; our own errors become one line and exit code 1."""
        try:
            return super().invoke(ctx)
        except DiffusionADError as exc:
            raise click.ClickException(str(exc)) from exc


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMANDS)}


@click.command(cls=InstalledCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffusionad")
def main() -> None:
    """Find defects in images of products, with DiffusionAD models on Triton."""
