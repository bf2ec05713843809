"""Options that several commands share."""

from __future__ import annotations

import click

concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(min=1, max=256),
    default=4,
    show_default=True,
    help="Images under way at the same time.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
