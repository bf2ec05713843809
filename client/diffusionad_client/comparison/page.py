"""From a comparison to compare.html."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from diffusionad_client import __version__
from diffusionad_client.artifacts.metadata import Verdict
from diffusionad_client.comparison.pairing import ClassCounts, Comparison, Pair, Side
from diffusionad_client.comparison.scatter import SIDE, scatter
from diffusionad_client.files import write_aside
from diffusionad_client.pages import pictures
from diffusionad_client.pages.rendering import open_picture, render, thumbnail

MAX_CHANGES = 60  # shown with pictures
MAX_FAILURES = 200  # listed
MAX_CLASSES = 100  # listed, those with the most changes first

_TEMPLATE = "compare.html.j2"


@dataclass(frozen=True)
class ChangeCard:
    """An image whose verdict changed; pictures are data URIs, None where there is none."""

    pair: Pair
    image: str | None
    base: str | None
    candidate: str | None


def write_page(result: Comparison, path: Path) -> None:
    """Write the page of a comparison."""
    base, candidate = result.base.thresholds, result.candidate.thresholds
    has_chart = base is not None and candidate is not None and len(result.points.base) > 0
    shown = result.changes[:MAX_CHANGES]
    has_heatmaps = any(pair.base.heatmap or pair.candidate.heatmap for pair in shown)
    page = render(
        _TEMPLATE,
        templates=Path(__file__).parent,
        result=result,
        sides=(result.base, result.candidate),
        chart=scatter(result.points, base, candidate) if has_chart and base and candidate else None,
        side=SIDE,
        classes=_classes(result),
        cards=[_card(result, pair) for pair in shown],
        failures=result.failures[:MAX_FAILURES],
        verdicts=[verdict.value for verdict in Verdict],
        has_heatmaps=has_heatmaps,
        started=datetime.fromisoformat(result.base.summary.started).strftime("%Y-%m-%d %H:%M"),
        version=__version__,
    )
    write_aside(path, page.encode("utf-8", "xmlcharrefreplace"))


def _classes(result: Comparison) -> list[ClassCounts]:
    """Choose the folders to list; none where all images lie in one."""
    if len(result.classes) < 2:
        return []
    by_change = sorted(result.classes.values(), key=lambda group: (-group.changed, group.name))
    return sorted(by_change[:MAX_CLASSES], key=lambda group: group.name)


def _card(result: Comparison, pair: Pair) -> ChangeCard:
    return ChangeCard(
        pair=pair,
        image=thumbnail(open_picture(Path(result.base.summary.root), pair.image)),
        base=_heatmap(result.base, pair.base.heatmap),
        candidate=_heatmap(result.candidate, pair.candidate.heatmap),
    )


def _heatmap(side: Side, name: str | None) -> str | None:
    picture = open_picture(side.folder, name)
    return thumbnail(None if picture is None else pictures.without_scale(picture))
