"""The one command, `diffusionad`; what is installed adds its subcommands to it.

A subcommand is a module with one click command and one line under the entry
point group `diffusionad.commands`. No subcommand is imported until it runs,
not even for the help, which takes a line for each from here; one that cannot
be imported does not stop the others.

Exit codes: 0 done; 1 it could not be done; 2 wrong usage; 3 done, but some
images could not be scored; 10 done, and found what was asked to fail on; 130
interrupted.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, NamedTuple

import click

from diffusionad_client import __version__
from diffusionad_client.distributions import install_hint
from diffusionad_client.errors import DiffusionADError

COMMANDS = "diffusionad.commands"
EXIT_SOME_FAILED = 3
EXIT_SERVER_GONE = 4
EXIT_DEFECTS = 10  # with --fail-on
EXIT_FOUND = 10  # what --fail-... was given for
EXIT_INTERRUPTED = 130  # what shells give for a Ctrl-C

_NO_LIMIT = 10_000  # characters of a summary

_CLIENT, _TRAINING, _TOOLS = "diffusionad-client", "diffusionad-training", "diffusionad-tools"


class _Known(NamedTuple):
    """A command of ours, whether it is installed here or not."""

    distribution: str  # that it comes with
    summary: str  # the first sentence of its help; a test holds the two together


_KNOWN = {
    "calibrate": _Known(
        _CLIENT, "Set thresholds anew from RESULTS, the output folder of `diffusionad score`."
    ),
    "datasets": _Known(_TRAINING, "Tell whether a public data set was downloaded whole."),
    "demo-data": _Known(_TOOLS, "Write pictures of a made-up product to the new folder OUTPUT."),
    "drift": _Known(
        _CLIENT, "Tell whether the scores in RESULTS have moved from those in BASELINE."
    ),
    "evaluate": _Known(
        _TRAINING, "Measure a detector on DATA/test, with masks from DATA/ground_truth."
    ),
    "export": _Known(_TRAINING, "Export the trained RUN as a release bundle."),
    "health": _Known(_CLIENT, "Ask a server whether all of its models are ready."),
    "models": _Known(
        _CLIENT, "List the categories of a server, with their releases, thresholds and states."
    ),
    "presets": _Known(_TRAINING, "List the presets of `diffusionad train`, and what each costs."),
    "release": _Known(
        _TOOLS,
        "Add releases to a model repository, choose which is served, list, compare and check them.",
    ),
    "report": _Known(
        _CLIENT, "Make report.html again from RESULTS, the output folder of `diffusionad score`."
    ),
    "results": _Known(_CLIENT, "Work on the results of `diffusionad score`."),
    "score": _Known(
        _CLIENT, "Score images: each SOURCE is an image, a folder or a quoted glob pattern."
    ),
    "serve": _Known(_TOOLS, "Serve a model repository with an embedded Triton Inference Server."),
    "soak": _Known(
        _TOOLS,
        "Soak a server: score IMAGES for hours while releases change and the server restarts.",
    ),
    "train": _Known(_TRAINING, "Train a detector on the good images in DATA."),
    "watch": _Known(_CLIENT, "Score images as they come into FOLDER, until it is stopped."),
}

# What importing a command's module can raise: missing or broken packages, extension
# modules built for another numpy (ValueError, RuntimeError), missing shared libraries.
_IMPORT_FAILURES = (
    ImportError, AttributeError, NameError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip


class WholeSummaries(click.Group):
    """A group whose help says all of what each of its commands does; click would cut it short."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line for each command, or more if it needs them."""
        names = self.list_commands(ctx)
        if names:
            with formatter.section("Commands"):
                formatter.write_dl([(name, self.summary(ctx, name)) for name in names])

    def summary(self, ctx: click.Context, name: str) -> str:
        """Say in a sentence what a command does."""
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(limit=_NO_LIMIT)


class InstalledCommands(WholeSummaries):
    """A group whose commands are the installed entry points, each loaded when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the installed commands."""
        return sorted(_installed())

    def summary(self, ctx: click.Context, name: str) -> str:
        """Say what a command does, without loading it if it is ours."""
        package = _installed()[name].module.partition(".")[0]
        if name in _KNOWN and find_spec(package) is not None:
            return _KNOWN[name].summary
        return super().summary(ctx, name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        entry = _installed().get(cmd_name)
        if entry is not None:
            return _load(entry)
        if cmd_name in _KNOWN:
            distribution = _KNOWN[cmd_name].distribution
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
        except MemoryError as exc:
            raise click.ClickException(
                "there is not enough memory for this; give the process more, or less to do at once"
            ) from exc
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


@lru_cache(maxsize=1)
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
    # gRPC writes about each handshake that fails, in lines that look like a crash; our error says
    # what it was. It reads this when a command imports it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
