"""Small copies of pictures inside the page, of a bounded choice of images.

For a page that is sent without its folder, and for formats that browsers do
not show. All other pictures are read from where they lie, when they are seen.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from urllib.parse import quote

import numpy as np

from diffusionad_client.pages import pictures
from diffusionad_client.pages.rendering import open_picture, thumbnail
from diffusionad_client.scoring.gathered import NAME, VERDICTS, Coded, Gathered

HIGHEST = 110  # images with the highest scores
OF_EACH_VERDICT = 30  # images drawn at random from each verdict
MAX_EMBEDDED = HIGHEST + OF_EACH_VERDICT * len(VERDICTS)

SHOWN_BY_BROWSERS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")


def choose(run: Gathered) -> list[int]:
    """Choose images: the highest scores, and some of each verdict; their places, in order.

    A score that is not a number comes first. The choice is random but the same
    every time, so a report can be made again.
    """
    scores = np.frombuffer(run.scores, np.float64)
    ranked = np.argsort(np.where(np.isnan(scores), -np.inf, -scores), kind="stable")
    chosen = set(ranked[:HIGHEST].tolist())
    draw = random.Random(0)
    verdicts = np.frombuffer(bytes(run.verdicts), np.uint8)
    for code in range(len(VERDICTS)):
        places = np.flatnonzero(verdicts == code).tolist()
        chosen.update(draw.sample(places, min(OF_EACH_VERDICT, len(places))))
    return sorted(chosen)


def embed(
    run: Gathered, output: Path, root: Path | None, *, everything: bool
) -> dict[int, dict[str, str]]:
    """Give data URIs of the chosen images' pictures, by place and kind.

    Of `everything`, or only of images in a format that browsers do not show. A
    picture that cannot be read now is left out.
    """
    embedded: dict[int, dict[str, str]] = {}
    for place in choose(run):
        name = run.names[place]
        made: dict[str, str | None] = {}
        if root is not None and (everything or not name.lower().endswith(SHOWN_BY_BROWSERS)):
            made["image"] = thumbnail(open_picture(root, name))
        if everything:
            heatmap = open_picture(output, _file(run.heatmaps, place, name))
            made["heatmap"] = thumbnail(
                None if heatmap is None else pictures.without_scale(heatmap)
            )
            reconstruction = _file(run.reconstructions, place, name)
            made["reconstruction"] = thumbnail(open_picture(output, reconstruction))
        if found := {kind: uri for kind, uri in made.items() if uri is not None}:
            embedded[place] = found
    return embedded


def address(folder: Path, seen_from: Path) -> str:
    """Give the URL of a folder as a page in another sees it, with a "/" at its end."""
    try:
        path = Path(os.path.relpath(folder, seen_from)).as_posix()
    except ValueError:  # Windows: on another drive
        return folder.absolute().as_uri() + "/"
    return quote(os.fsencode(path)) + "/"


def _file(column: Coded, place: int, name: str) -> str | None:
    code = column.codes[place]
    return None if code < 0 else list(column.values)[code].replace(NAME, name)
