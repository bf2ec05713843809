"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click


class Number(click.FloatRange):
    """A number in a range. Click's own takes nan in any, and infinity in an open one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert, and refuse what is no finite number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


SECONDS = Number(min=0, min_open=True)
SECONDS_OR_NONE = Number(min=0)  # 0: not at all
concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(min=1, max=256),
    default=4,
    show_default=True,
    help="Images under way at the same time.",
)


class _Concurrency(click.IntRange):
    """A number of images under way, or auto, which is None."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return "auto" if value == "auto" else super().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "N|auto"


concurrency_or_auto_option = click.option(
    "--concurrency",
    type=_Concurrency(min=1, max=256),
    default=4,
    show_default=True,
    callback=lambda ctx, param, value: None if value == "auto" else value,
    help="Images under way at the same time; auto: as many as make the run faster.",
)
_RATE = Number(min=0, max=1, min_open=True, max_open=True)


def calibrated_to(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command be told the rates that thresholds were calibrated to."""
    for name, what in (("--review-rate", "REVIEW or NG"), ("--false-reject-rate", "NG")):
        text = f"Share of good parts that calibration let be {what}."
        text += "  [default: the release's if good parts are compared, else the baseline's]"
        command = click.option(name, type=_RATE, help=text)(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
