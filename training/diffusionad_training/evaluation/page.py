"""From what was measured to one HTML page with its pictures inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from diffusionad_client.artifacts.roi import Mask
from diffusionad_client.files import write_aside
from diffusionad_client.pages import histogram
from diffusionad_client.pages.rendering import render
from diffusionad_training.data.layout import GOOD
from diffusionad_training.evaluation import charts
from diffusionad_training.evaluation.drawing import Card, draw
from diffusionad_training.evaluation.measure import Curves, Measured
from diffusionad_training.evaluation.metrics import PRO_LIMIT, Curve
from diffusionad_training.evaluation.results import Evaluation

_TEMPLATE = "page.html.j2"
_MAP_MIDDLE = 0.5  # of the map's colours, where no threshold can be derived from the scores


@dataclass(frozen=True)
class Subject:
    """What was measured, on what."""

    detector: str  # for people; `Evaluation.detector` tells detectors apart
    data: Path
    roi: Mask | None
    warning: str | None


@dataclass(frozen=True)
class _Chart:
    title: str
    figure: float | None
    x_label: str
    y_label: str
    plot: charts.Plot | None  # None where the data do not define it


@dataclass(frozen=True)
class _Gallery:
    title: str
    about: str
    cards: list[Card]


@dataclass(frozen=True)
class _Section:
    way: str
    evaluation: Evaluation
    scores: histogram.Stack
    f1_threshold: histogram.Mark | None
    map_middle: float
    charts: list[_Chart]
    galleries: list[_Gallery]


def write_page(path: Path, subject: Subject, results: Mapping[str, Measured]) -> None:
    """Write the page of one detector, a section for each way to denoise.

    Of the data folder it says the name, never the path. Raises `OutputError`.
    """
    first = next(iter(results.values())).evaluation
    sections = [_section(way, result, subject) for way, result in results.items()]
    page = render(
        _TEMPLATE,
        templates=Path(__file__).parent,
        data=subject.data.resolve().name,
        subject=subject,
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        sections=sections,
        first=first,
        good=sum(row.defect == GOOD for row in first.images),
        share_inside=None if subject.roi is None else float(subject.roi.mean()),
        chart_size=(histogram.WIDTH, histogram.HEIGHT),
        plot_size=(charts.WIDTH, charts.HEIGHT),
        version=version("diffusionad-training"),
    )
    write_aside(path, page.encode("utf-8", "xmlcharrefreplace"))


def _section(way: str, measured: Measured, subject: Subject) -> _Section:
    evaluation, examples = measured.evaluation, measured.examples
    counted = [row for row in evaluation.images if not row.outside]
    scores = histogram.stack_up(
        {
            "good": [row.score for row in counted if row.defect == GOOD],
            "defective": [row.score for row in counted if row.defect != GOOD],
        }
    )
    # A score is a mean of map values: what would turn a part away is yellow and hotter.
    threshold = evaluation.f1_threshold
    middle = _MAP_MIDDLE if threshold is None else threshold
    galleries = [
        _Gallery(title, about, [draw(one, subject.data, subject.roi, middle) for one in kept])
        for title, about, kept in (
            ("Lowest-scored defective", "what is missed first", examples.missed),
            ("Highest-scored good", "what is turned away first", examples.false_alarms),
            ("Highest-scored defective", "what is found most surely", examples.found),
        )
    ]
    return _Section(
        way=way,
        evaluation=evaluation,
        scores=scores,
        f1_threshold=None if threshold is None else scores.mark(threshold),
        map_middle=middle,
        charts=_charts(evaluation, measured.curves),
        galleries=[gallery for gallery in galleries if gallery.cards],
    )


def _charts(evaluation: Evaluation, curves: Curves) -> list[_Chart]:
    limit = f"{PRO_LIMIT:.0%}".replace("%", " %")

    def chart(
        title: str, figure: float | None, x: str, y: str, curve: Curve | None, end: float = 1.0
    ) -> _Chart:
        return _Chart(title, figure, x, y, None if curve is None else charts.plot(curve, end))

    return [
        chart(
            "Images: ROC, AUROC",
            evaluation.image_auroc,
            "share of good images above the threshold",
            "share of defective images above it",
            curves.image_roc,
        ),
        chart(
            f"Regions: PRO up to {limit}",
            evaluation.pro,
            "share of normal pixels above the threshold",
            "share of a region above it, on average",
            curves.pro,
            PRO_LIMIT,
        ),
        chart(
            "Pixels: precision and recall, AP",
            evaluation.pixel_average_precision,
            "recall",
            "precision",
            curves.precision_recall,
        ),
    ]
