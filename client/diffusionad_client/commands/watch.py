"""`diffusionad watch`: score images as they come into a folder."""

from __future__ import annotations

import math
import os
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.cli import EXIT_INTERRUPTED, EXIT_SERVER_GONE
from diffusionad_client.commands.log_lines import log_format
from diffusionad_client.commands.options import (
    SECONDS,
    SECONDS_OR_NONE,
    concurrency_or_auto_option,
)
from diffusionad_client.commands.score_values import parsed
from diffusionad_client.commands.scoring_options import (
    ScoringChoice,
    results_option,
    scores_images,
)
from diffusionad_client.commands.server import ServerChoice, model_option, reaches_server

if TYPE_CHECKING:
    from diffusionad_client.scoring.settings import Settings
    from diffusionad_client.watching.run import WatchPlan
    from diffusionad_client.watching.sorter import Sorting

_VERDICTS = click.Choice(["OK", "REVIEW", "NG", "FAILED", "ANY"], case_sensitive=False)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@model_option
@reaches_server(repository=True)
@concurrency_or_auto_option
@scores_images
# arrivals
@click.option(
    "--settle",
    type=SECONDS_OR_NONE,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="A file is complete when it has not changed for so long; at once if it was renamed.",
)
@click.option(
    "--poll",
    type=SECONDS,
    metavar="SECONDS",
    help="Search the folder so often, for network shares, whose changes the system is not told.",
)
# consequences
@click.option(
    "--sort",
    "way",
    type=click.Choice(["move", "link"]),
    help="Move or link each file into a folder of its verdict below --sort-into.",
)
@click.option(
    "--sort-into",
    "into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the folders OK, REVIEW, NG and FAILED are.",
)
@click.option(
    "--on-verdict",
    "commands",
    multiple=True,
    nargs=2,
    type=(_VERDICTS, str),
    metavar="VERDICT COMMAND",
    help="Run COMMAND for each image of VERDICT: OK, REVIEW, NG, FAILED or ANY. In its arguments "
    "{path}, {verdict} and {score} are filled in; the record is on its standard input.",
)
@click.option(
    "--command-timeout",
    type=SECONDS,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop a command that takes longer.",
)
@click.option(
    "--command-jobs",
    type=click.IntRange(min=1, max=64),
    default=4,
    show_default=True,
    help="Commands that run at the same time; 1 runs them in the order of the results.",
)
# output
@results_option
@click.option(
    "--patience",
    type=SECONDS_OR_NONE,
    metavar="SECONDS",
    help="How long to wait for a server that is away.  [default: for ever]",
)
@log_format("Of the lines on standard error.")
@click.option(
    "--metrics-port",
    type=click.IntRange(min=1, max=65535),
    metavar="PORT",
    help="Counts for Prometheus, on this port of 127.0.0.1.",
)
@click.pass_context
def watch(
    ctx: click.Context,
    *,
    folder: Path,
    model: str | None,
    server: ServerChoice,
    concurrency: int | None,
    choice: ScoringChoice,
    settle: float,
    poll: float | None,
    way: str | None,
    into: Path | None,
    commands: tuple[tuple[str, str], ...],
    command_timeout: float,
    command_jobs: int,
    output: Path,
    patience: float | None,
    log_format: str,
    metrics_port: int | None,
) -> None:
    """Score images as they come into FOLDER, until it is stopped.

    Each file is taken once, when it is complete, and its record is added to
    the results that `diffusionad score` writes. The same command goes on after
    a stop or a kill. Ctrl-C finishes what is under way and exits with 130.

    \b
      diffusionad watch incoming --model screw --output results
      diffusionad watch incoming --output results --sort move --sort-into sorted
      diffusionad watch incoming --output results --on-verdict NG './eject.sh {path}'
    """
    from diffusionad_client.output_folders import check_claim
    from diffusionad_client.scoring.results import RESULTS
    from diffusionad_client.watching.aftermath import Consequences
    from diffusionad_client.watching.lookout import check_can_watch
    from diffusionad_client.watching.run import WatchPlan
    from diffusionad_client.watching.verdict_commands import VerdictCommand

    settings = choice.settings(
        output=output,
        model=model,
        concurrency=concurrency,
        patience=math.inf if patience is None else patience,
    )
    plan = WatchPlan(
        folder=folder,
        settle_s=settle,
        poll_s=poll,
        wanted=Consequences(
            sorting=_sorting(way, into),
            commands=[
                parsed(partial(VerdictCommand.parse, verdict), text) for verdict, text in commands
            ],
            command_timeout=command_timeout,
            jobs=command_jobs,
        ),
    )
    check_can_watch(poll)
    _check_folders(folder, output, into)
    check_claim(output, RESULTS, overwrite=True)  # before a server is started for nothing
    _run(ctx, server, plan, settings, as_json=log_format == "json", metrics_port=metrics_port)


def _sorting(way: str | None, into: Path | None) -> Sorting | None:
    from diffusionad_client.watching.placing import Way
    from diffusionad_client.watching.sorter import Sorting

    if (way is None) != (into is None):
        raise click.UsageError("--sort and --sort-into go together")
    return None if way is None or into is None else Sorting(Way(way), into.absolute())


def _check_folders(folder: Path, output: Path, into: Path | None) -> None:
    from diffusionad_client.errors import SourceError

    if not folder.is_dir():
        raise SourceError(f"{folder}: there is no such folder to watch; make it first")
    for other, name in ((output, "--output"), (into, "--sort-into")):
        if other is not None and os.path.realpath(other) == os.path.realpath(folder):
            raise SourceError(
                f"{folder}: is watched, and cannot be {name} as well; choose another folder, "
                "which may be inside this one"
            )


def _run(
    ctx: click.Context,
    server: ServerChoice,
    plan: WatchPlan,
    settings: Settings,
    *,
    as_json: bool,
    metrics_port: int | None,
) -> None:
    from diffusionad_client.commands.interrupts import first_ctrl_c
    from diffusionad_client.commands.watch_log import WatchLog
    from diffusionad_client.errors import ServerGoneError
    from diffusionad_client.watching.counts import Counts, check_can_count
    from diffusionad_client.watching.run import watch_folder

    with ExitStack() as stack:
        counts = None
        if metrics_port is not None:
            check_can_count()
            counts = Counts()
            counts.serve(metrics_port)
            stack.callback(counts.stop)
        connection = stack.enter_context(server.open())
        stop = stack.enter_context(first_ctrl_c(signal.SIGTERM))
        log = WatchLog(as_json=as_json, counts=counts)
        try:
            summary = watch_folder(connection, plan, settings, log, stop)
        except ServerGoneError as exc:
            click.echo(f"Error: {exc}; the same command goes on", err=True)
            ctx.exit(EXIT_SERVER_GONE)
    counted = "   ".join(f"{name} {count}" for name, count in summary.verdicts.items())
    click.echo(f"{summary.images} images, {summary.model}: {counted}   failed {summary.failed}")
    click.echo(f"{summary.scored} of them now; the same command goes on")
    ctx.exit(EXIT_INTERRUPTED)
