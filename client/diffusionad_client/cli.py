"""The one command, `diffusionad`; what is installed adds its subcommands to it.

A subcommand is a module with one click command and one line under the entry
point group `diffusionad.commands`. Nothing heavy is imported until a
subcommand runs, and one that cannot be imported does not stop the others.

Exit codes: 0 done; 1 it could not be done; 2 wrong usage; 3 done, but some
images could not be scored; 130 interrupted.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from diffusionad_client import __version__
from diffusionad_client.distributions import install_hint
from diffusionad_client.errors import DiffusionADError

COMMANDS = "diffusionad.commands"
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130  # what shells give for a Ctrl-C

_DISTRIBUTIONS = {  # where a command lives that is not installed
    "train": "diffusionad-training",
    "evaluate": "diffusionad-training",
    "export": "diffusionad-training",
    "presets": "diffusionad-training",
    "serve": "diffusionad-tools",
    "release": "diffusionad-tools",
    "demo-data": "diffusionad-tools",
}

# What importing a command's module can raise: missing or broken packages, extension
# modules built for another numpy (ValueError, RuntimeError), missing shared libraries.
_IMPORT_FAILURES = (
    ImportError, AttributeError, NameError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip


class InstalledCommands(click.Group):
    """A group whose commands are the installed entry points, each loaded when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the installed commands."""
        return sorted(_installed())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        entry = _installed().get(cmd_name)
        if entry is not None:
            return _load(entry)
        if cmd_name in _DISTRIBUTIONS:
            distribution = _DISTRIBUTIONS[cmd_name]
            raise click.UsageError(
                f"`diffusionad {cmd_name}` comes with {distribution}, which is not installed "
                f"here; {install_hint(distribution)}"
            )
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error becomes one line and an exit code, never a traceback."""
        try:
            return super().invoke(ctx)
        except DiffusionADError as exc:
            raise click.ClickException(str(exc)) from exc
        except BrokenPipeError:  # the reader of our output left; click ends quietly
            raise
        except OSError as exc:
            where = "" if exc.filename is None else f"{exc.filename}: "
            raise click.ClickException(f"{where}{exc.strerror or exc}") from exc
        except KeyboardInterrupt as exc:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from exc


class BrokenCommand(click.Command):
    """Stands in the help for a command whose module cannot be imported, and says why."""

    def __init__(self, entry: EntryPoint, reason: BaseException) -> None:
        super().__init__(
            entry.name,
            short_help=f"(cannot be loaded: {reason})",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
        self._message = (
            f"`diffusionad {entry.name}` cannot be loaded from {entry.value}: "
            f"{type(reason).__name__}: {reason}"
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Say why the command cannot run."""
        raise click.ClickException(self._message)


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMANDS)}


def _load(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except _IMPORT_FAILURES as exc:
        return BrokenCommand(entry, exc)
    if not isinstance(command, click.Command):
        return BrokenCommand(entry, TypeError("it is not a click command"))
    return command


@click.command(cls=InstalledCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffusionad")
def main() -> None:
    """Find defects in images of products, with DiffusionAD models on Triton."""
