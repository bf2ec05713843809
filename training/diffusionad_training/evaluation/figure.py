"""A labelled figure of a run at work: one row an image, one column for each thing on its way.

    python -m diffusionad_training.evaluation.figure RUN IMAGE... --output FIGURE.jpg

With norm guidance that is x0, x_ts, x_tb, x0_s, n, x0_g and the map. docs/concepts.md
shows one, and says what they are.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from diffusionad_client import heat
from diffusionad_client.errors import DiffusionADError
from diffusionad_client.files import write_aside
from diffusionad_training.data.images import load_all
from diffusionad_training.method.model import DiffusionAD, Segmentation
from diffusionad_training.run.checkpoint import load_run

CELL = 128  # pixels a side of a picture: seven are as wide as a page
_GAP = 2  # pixels of white between two pictures
_HEAD = 24  # pixels of the line of labels
_TEXT = 14  # pixels
_MAP_MIDDLE = 0.5  # the value in the middle of the map's colours: a run has no pixel threshold yet
_QUALITY = 80  # of JPEG, in which noise takes most of the bytes


@torch.no_grad()
def columns(model: DiffusionAD, images: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """What the model makes of images (N, S, S, 3), each (N, S, S, 3) uint8, by its label.

    The first is the images, the last the map laid over them.
    """
    batch = torch.from_numpy(images)
    shown = model.restoration.show(model, model.normalise(batch))
    reconstruction = list(shown.values())[-1]
    anomaly_maps, _ = Segmentation(model)(batch, reconstruction)
    pictures = {label: model.to_picture(x).numpy() for label, x in shown.items()}
    laid_over = [
        heat.blend(image, values, _MAP_MIDDLE)
        for image, values in zip(images, anomaly_maps.numpy(), strict=True)
    ]
    return {"x0": images, **pictures, "map": np.stack(laid_over)}


def draw(shown: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """Set columns (N, S, S, 3) side by side, each under its label."""
    rows = len(next(iter(shown.values())))
    step = CELL + _GAP
    page = Image.new("RGB", (len(shown) * step - _GAP, _HEAD + rows * step - _GAP), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(_TEXT)
    for column, (label, pictures) in enumerate(shown.items()):
        left = column * step
        pen.text((left + CELL // 2, _HEAD // 2), label, fill="black", font=font, anchor="mm")
        for row, pixels in enumerate(pictures):
            small = Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.BOX)
            page.paste(small, (left, _HEAD + row * step))
    return page


def write(run: Path, images: Sequence[Path], output: Path) -> None:
    """Draw what a run makes of image files, as a JPEG.

    Raises a `DiffusionADError` if the run or an image cannot be read, or the file not written.
    """
    model = load_run(run).model.eval()
    config = model.config
    figure = draw(columns(model, load_all(images, config.size, depth=config.depth)))
    encoded = io.BytesIO()
    figure.save(encoded, "JPEG", quality=_QUALITY, optimize=True)
    write_aside(output, encoded.getvalue())


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The JPEG to write.")
def main(run: Path, images: tuple[Path, ...], output: Path) -> None:
    """Draw what RUN makes of IMAGES: one row each, every step in a column of its own."""
    try:
        write(run, images, output)
    except DiffusionADError as exc:
        raise click.ClickException(str(exc)) from exc


if __name__ == "__main__":
    main()
