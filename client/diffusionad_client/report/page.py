"""From a folder of results to report.html."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusionad_client import __version__
from diffusionad_client.artifacts.metadata import Thresholds, Verdict
from diffusionad_client.files import write_aside
from diffusionad_client.pages import histogram, pictures
from diffusionad_client.pages.rendering import check_can_render, open_picture, render, thumbnail
from diffusionad_client.report import selection
from diffusionad_client.scoring.results import HEATMAPS, REPORT_HTML, read_rows, read_summary
from diffusionad_client.scoring.row import Row

_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class ImageCard:
    """One image as the report shows it; pictures are data URIs, None where there is none."""

    row: Row
    image: str | None
    reconstruction: str | None
    heatmap: str | None


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
        chart = histogram.histogram(view.scores, Thresholds.as_stored(main.accept, main.reject))
    page = render(
        _TEMPLATE,
        templates=Path(__file__).parent,
        summary=summary,
        view=view,
        releases=releases,
        rois=sorted({release.roi for release, _ in releases if release.roi}),
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


def _card(row: Row, output: Path, root: Path) -> ImageCard:
    heatmap = open_picture(output, row.heatmap)
    return ImageCard(
        row=row,
        image=thumbnail(open_picture(root, row.image)),
        reconstruction=thumbnail(open_picture(output, row.reconstruction)),
        heatmap=thumbnail(None if heatmap is None else pictures.without_scale(heatmap)),
    )
