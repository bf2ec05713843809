"""From a folder of results to report.html. Needs jinja2, the extra `report`."""

from __future__ import annotations

import base64
import importlib.resources
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffusionad_client import __version__, images
from diffusionad_client.distributions import install_hint
from diffusionad_client.errors import ImageError, ReportError
from diffusionad_client.files import write_aside
from diffusionad_client.metadata import Thresholds, Verdict
from diffusionad_client.report import histogram, selection
from diffusionad_client.scoring import pictures
from diffusionad_client.scoring.results import (
    HEATMAPS,
    REPORT_HTML,
    Row,
    read_rows,
    read_summary,
)

_THUMBNAIL = 280  # pixels of the longest side: three a card, sharp on a dense screen
_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Card:
    """One image as the report shows it; pictures are data URIs, None where there is none."""

    row: Row
    image: str | None
    reconstruction: str | None
    heatmap: str | None


def check_can_render() -> None:
    """Raise `ReportError` if jinja2 is missing, before any work is done."""
    if importlib.util.find_spec("jinja2") is None:
        raise ReportError(
            "the report needs jinja2, which is not installed here; score with --no-report, or "
            + install_hint("diffusionad-client", "report")
        )


def write_report(output: Path, *, image_root: Path | None = None) -> Path:
    """Write OUTPUT/report.html from the results in OUTPUT; returns its path.

    The images are looked for where they were scored, or below `image_root`.
    Raises `ReportError` or `OutputError`.
    """
    check_can_render()
    summary = read_summary(output)
    view = selection.overview(read_rows(output))
    root = Path(summary.root) if image_root is None else image_root
    releases = sorted(view.releases.items(), key=lambda item: -item[1])
    chart = None
    if releases:
        main = releases[0][0]
        chart = histogram.histogram(view.scores, Thresholds(main.accept, main.reject))
    page = _render(
        summary=summary,
        view=view,
        releases=releases,
        chart=chart,
        chart_size=(histogram.WIDTH, histogram.HEIGHT),
        cards=[_card(row, output, root) for row in view.shown],
        verdicts=[verdict.value for verdict in Verdict],
        highest=selection.HIGHEST,
        of_each=selection.OF_EACH_VERDICT,
        has_heatmaps=(output / HEATMAPS).is_dir(),
        version=__version__,
    )
    path = output / REPORT_HTML
    write_aside(path, page.encode("utf-8", "xmlcharrefreplace"))
    return path


def _render(**context: Any) -> str:
    import jinja2  # an extra: only here

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = importlib.resources.files(__package__).joinpath(_TEMPLATE).read_text("utf-8")
    return environment.from_string(source).render(**context)


def _card(row: Row, output: Path, root: Path) -> Card:
    heatmap = _open(output, row.heatmap)
    return Card(
        row=row,
        image=_thumbnail(_open(root, row.image)),
        reconstruction=_thumbnail(_open(output, row.reconstruction)),
        heatmap=_thumbnail(None if heatmap is None else pictures.without_scale(heatmap)),
    )


def _open(folder: Path, name: str | None) -> Image.Image | None:
    """Open a picture; None if it is gone since, which the report then says in its place."""
    if name is None:
        return None
    try:
        return Image.fromarray(images.load(folder / name))
    except ImageError:
        return None


def _thumbnail(picture: Image.Image | None) -> str | None:
    if picture is None:
        return None
    factor = _THUMBNAIL / max(picture.size)
    if factor < 1:
        width, height = (max(round(side * factor), 1) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    encoded = base64.b64encode(pictures.jpeg(picture, quality=80)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"
