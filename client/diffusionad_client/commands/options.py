"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_URL = "127.0.0.1:8001"

url_option = click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    metavar="HOST:PORT",
    help="The server's gRPC address.",
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for an answer.",
)
concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(min=1, max=256),
    default=4,
    show_default=True,
    help="Images under way at the same time.",
)
admin_key_option = click.option(
    "--admin-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The server's admin key, for one with explicit model control.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
