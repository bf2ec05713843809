"""Lines of a command that runs for long, as JSON for machines: one object, one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def log_format(what: str) -> Callable[[Function], Function]:
    """Add the option `--log-format`, whose help says of which lines it is the format."""
    return click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help=what,
    )


def json_line(level: str, *, time: datetime | None = None, **values: Any) -> str:
    """Write a line: `time` (now by default) with its offset from UTC, `level`, and `values`.

    A value that holds a line end makes no second line.
    """
    return json.dumps({"time": stamp(time), "level": level, **values})


def stamp(time: datetime | None = None) -> str:
    """Write a time, now by default, as this machine's clock shows it: ISO 8601, to the ms."""
    shown = datetime.now(timezone.utc) if time is None else time
    return shown.astimezone().isoformat("T", "milliseconds")
