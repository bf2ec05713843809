"""`diffusionad train`: from a folder of good images to a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.commands.options import Number

if TYPE_CHECKING:
    from diffusionad_training.data.foregrounds import Foreground
    from diffusionad_training.data.structure import Surface

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Parse a time such as 90s, 45m or 3h, into seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value)
    if match is None or float(match[1]) == 0:
        raise click.BadParameter(f"{value!r} is not a time; write it as 90s, 45m or 3h")
    return float(match[1]) * _SECONDS[match[2]]


def _foreground(ctx: click.Context, param: click.Parameter, value: str) -> Path | Foreground:
    """Parse auto, none or a folder."""
    if value == "auto":
        return "auto"
    return "none" if value == "none" else Path(value)


def _settings(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Parse SETTING=VALUE."""
    pairs = [value.partition("=") for value in values]
    for (path, sign, new), value in zip(pairs, values, strict=True):
        if not (path and sign and new):
            raise click.BadParameter(f"{value!r} is not SETTING=VALUE, as in loss.focal_gamma=2")
    return tuple((path, new) for path, _, new in pairs)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for the run."
)
@click.option("--preset", default="edge", show_default=True, help="See `diffusionad presets`.")
@click.option(
    "--textures",
    type=click.Path(path_type=Path),
    help="Folder of pictures to make synthetic anomalies from; without it none is a texture.",
)
@click.option(
    "--foreground",
    default="auto",
    show_default=True,
    callback=_foreground,
    metavar="auto|none|DIR",
    help="Where synthetic anomalies may lie: on the product as it is found in the images, "
    "anywhere, or on the masks in a folder, which are named like the images.",
)
@click.option(
    "--surface",
    type=click.Choice(["auto", "part", "texture"]),
    default="auto",
    show_default=True,
    help="What the images show: parts that all lie the same way, or a texture, which needs other "
    "anomalies; auto finds out.",
)
@click.option("--image-size", type=int, help="Side of the square the images are stretched to.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps at most.")
@click.option("--batch", type=click.IntRange(min=2), help="Images in a batch.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=_settings,
    metavar="SETTING=VALUE",
    help="Change any setting of the preset, such as loss.focal_gamma=2; `diffusionad presets "
    "--json` lists them. May be repeated.",
)
@click.option(
    "--flip/--no-flip", default=None, help="Mirror the images, for products without a right way up."
)
@click.option(
    "--time-budget",
    callback=_duration,
    help="End after this time, such as 90s, 45m or 3h. Not repeatable to the bit, unlike --steps.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of everything random.",
)
@click.option(
    "--held-out",
    type=Number(0, 0.9, min_open=True),
    default=0.15,
    show_default=True,
    help="Share of the good images kept for the thresholds.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Processes that make batches, for each device.",
)
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="GPUs to train on together; each takes a batch of its own.",
)
@click.option(
    "--checkpoint-steps",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    help="Save the run and draw samples every so many steps.",
)
@click.option(
    "--keep-best",
    is_flag=True,
    help="Keep the weights that do best on the held-out images, not the last.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="Stop after so many checkpoints without better weights.",
)
@click.option(
    "--from",
    "begin_from",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Start from the weights of this run, perhaps of another product, not from random ones.",
)
@click.option("--resume", is_flag=True, help="Go on with the unfinished training in --output.")
@click.option("--overwrite", is_flag=True, help="Replace an existing run.")
def train(
    data: Path,
    output: Path,
    preset: str,
    textures: Path | None,
    foreground: Path | Foreground,
    surface: Surface,
    image_size: int | None,
    steps: int | None,
    batch: int | None,
    settings: tuple[tuple[str, str], ...],
    flip: bool | None,
    time_budget: float | None,
    seed: int,
    held_out: float,
    workers: int,
    devices: int,
    checkpoint_steps: int,
    keep_best: bool,
    patience: int | None,
    begin_from: Path | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Train a detector on the good images in DATA.

    DATA is a folder of images, or has train/good in it.

    \b
      diffusionad train images/screw --output runs/screw --time-budget 45m
    """
    from diffusionad_training.config.presets import customised
    from diffusionad_training.config.settings import with_settings
    from diffusionad_training.fit.plan import TrainingPlan
    from diffusionad_training.fit.train import train as carry_out
    from diffusionad_training.networks import pretrained

    if resume and overwrite:
        raise click.UsageError("give --resume or --overwrite, not both")
    lacking = pretrained.missing()
    on_part, on_texture = (
        with_settings(
            customised(
                preset,
                size=image_size,
                steps=steps,
                batch=batch,
                flip=flip,
                with_textures=textures is not None,
                with_features=lacking is None,
                on_texture=is_texture,
            ),
            settings,
        )
        for is_texture in (False, True)
    )
    if lacking is not None and customised(preset, with_textures=True).detector.features.is_on:
        click.echo(f"Without features of a backbone: {lacking}", err=True)
    plan = TrainingPlan(
        data,
        output,
        on_part,
        on_texture=on_texture,
        surface=surface,
        textures=textures,
        foreground=foreground,
        held_out_share=held_out,
        seed=seed,
        time_budget=time_budget,
        workers=workers,
        devices=devices,
        checkpoint_steps=checkpoint_steps,
        keep_best=keep_best,
        patience=patience,
        begin_from=begin_from,
        resumed=resume,
        overwrite=overwrite,
    )
    module = carry_out(
        plan,
        progress=sys.stderr.isatty(),
        report=lambda line: click.echo(line, err=True),
    )
    if module.global_rank > 0:  # of several devices the first speaks for all
        return
    click.echo(f"Trained {module.step} steps: {output}")
    if (data / "test").is_dir():
        click.echo(f"Next: diffusionad evaluate {data} --run {output}")
    click.echo(f"Next: diffusionad export {output} --output bundles/{output.name}")
