"""The options of every command that scores images and writes results, as one `choice`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from diffusionad_client.commands.options import Number
from diffusionad_client.commands.score_values import read_fields, read_formats

if TYPE_CHECKING:
    from diffusionad_client.scoring.settings import Settings
    from diffusionad_client.sdk.arguments import Decode

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SCORE = Number(0, 1)  # of a part, by the contract

results_option = click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the results.",
)

_OPTIONS = (
    click.option(
        "--decode",
        type=click.Choice(["client", "server", "auto"]),
        default="client",
        show_default=True,
        help="Who decodes the images, to the same scores; auto: the server, of those that are "
        "smaller as files than as pixels.",
    ),
    # verdicts
    click.option("--accept", type=_SCORE, help="OK below this score; default: the release's."),
    click.option("--reject", type=_SCORE, help="NG from this score on; default: the release's."),
    # records
    click.option(
        "--field",
        "constants",
        multiple=True,
        metavar="NAME=VALUE",
        help="Write this into every record, such as lot=4711.",
    ),
    click.option(
        "--path-pattern",
        metavar="PATTERN",
        help="Take fields from the end of each path, such as '{line}/{lot}/{serial}.jpg'.",
    ),
    click.option("--retry-failed", is_flag=True, help="Score again what an earlier run failed on."),
    # files
    click.option(
        "--format",
        "formats",
        default="jsonl,csv",
        show_default=True,
        metavar="LIST",
        help="Tables to make of results.jsonl: csv, parquet.",
    ),
    click.option(
        "--heatmaps",
        type=click.Choice(["none", "ng", "all"]),
        default="all",
        show_default=True,
        help="Of which images there are heat maps and reconstructions; none is fastest.",
    ),
    click.option(
        "--picture-format",
        type=click.Choice(["png", "jpeg", "webp"]),
        default="png",
        show_default=True,
        help="Of the heat maps: png loses nothing, jpeg is made fastest, webp is smallest.",
    ),
    click.option("--save-maps", is_flag=True, help="Also save the raw maps, as 16-bit PNG."),
)


@dataclass(frozen=True, kw_only=True)
class ScoringChoice:
    """How images are scored, and what is written of them, as a command was told."""

    decode: Decode
    accept: float | None
    reject: float | None
    constants: tuple[str, ...]
    path_pattern: str | None
    retry_failed: bool
    formats: str
    heatmaps: str
    picture_format: str
    save_maps: bool

    def settings(self, **others: Any) -> Settings:
        """Make the settings of a run, with what else the command knows of it.

        Raises `click.UsageError` for values that are none.
        """
        from diffusionad_client.pages.pictures import PictureFormat
        from diffusionad_client.scoring.drawing import Heatmaps
        from diffusionad_client.scoring.settings import Settings

        return Settings(
            decode=self.decode,
            accept=self.accept,
            reject=self.reject,
            fields=read_fields(self.constants, self.path_pattern),
            retry_failed=self.retry_failed,
            formats=read_formats(self.formats),
            heatmaps=Heatmaps(self.heatmaps),
            picture_format=PictureFormat(self.picture_format),
            save_maps=self.save_maps,
            **others,
        )


def scores_images(command: _Command) -> Callable[..., Any]:
    """Give a command these options, as one `choice`."""

    @functools.wraps(command)
    def with_choice(*args: Any, **others: Any) -> Any:
        taken = {each.name: others.pop(each.name) for each in fields(ScoringChoice)}
        return command(*args, choice=ScoringChoice(**taken), **others)

    with_options: Callable[..., Any] = with_choice
    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options
