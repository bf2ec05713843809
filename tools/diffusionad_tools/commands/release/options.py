"""Options that several subcommands of `diffusionad release` take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from diffusionad_client.commands.options import SECONDS, SECONDS_OR_NONE, json_option
from diffusionad_client.local_server import STARTUP_S
from diffusionad_tools.release.staging import WAIT_S

Command = TypeVar("Command", bound=Callable[..., Any])

repository = click.option(
    "--repository",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Model repository.",
)
wait = click.option(
    "--wait",
    type=SECONDS_OR_NONE,
    default=WAIT_S,
    show_default=True,
    help="Seconds to wait for another `diffusionad release` on the same repository.",
)
settle = click.option(
    "--settle",
    type=SECONDS_OR_NONE,
    default=0.0,
    show_default=True,
    help="Seconds between the changes, for servers that poll the repository: more than their poll "
    "interval plus the models' loading time.",
)
ready_timeout = click.option(
    "--ready-timeout",
    type=SECONDS,
    default=STARTUP_S,
    show_default=True,
    help="Seconds for the models to load on the embedded Triton.",
)


def _trusted_keys(purpose: str) -> Callable[[Command], Command]:
    return click.option(
        "--trusted-key",
        "trusted_keys",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="DIFFUSIONAD_TRUSTED_KEYS",
        metavar="FILE",
        help=f"{purpose} May be repeated: any of them will do. "
        "[env: DIFFUSIONAD_TRUSTED_KEYS, separated by colons]",
    )


trusted_keys = _trusted_keys("Take only releases that this public key signed.")
trusted_keys_to_show = _trusted_keys("Say of each release whether this public key signed it.")
signing_key = click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Private key to sign with, from `diffusionad release keygen`.",
)
as_json = json_option
