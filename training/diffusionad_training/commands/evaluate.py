"""`diffusionad evaluate`: image and pixel metrics on labelled test images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffusionad_client.commands.server import ServerChoice, model_option, reaches_server

if TYPE_CHECKING:
    from diffusionad_training.evaluation.detectors import Detector
    from diffusionad_training.evaluation.results import ClassFigures, Evaluation


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="Measure a run, in torch.")
@reaches_server(repository=True, default_url=None)
@model_option
@click.option(
    "--denoising",
    type=click.Choice(["iterative", "small-step", "large-step", "norm-guided"]),
    multiple=True,
    default=["norm-guided"],
    help="With --run: how to denoise; several are compared.  [default: norm-guided]",
)
@click.option(
    "--noise-seed",
    "noise_seeds",
    type=click.IntRange(min=0),
    multiple=True,
    help="With --run: draw another noise constant, to see how much it matters; several are "
    "compared, with their spread.",
)
@click.option(
    "--roi",
    type=click.Path(path_type=Path),
    metavar="MASK",
    help="Image whose black pixels do not count. A served model's must be the one it inspects.",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write everything as JSON."
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PAGE.html",
    help="Write a page: figures by class, curves, and the best and worst images.",
)
def evaluate(
    data: Path,
    run: Path | None,
    server: ServerChoice,
    model: str | None,
    denoising: tuple[str, ...],
    noise_seeds: tuple[int, ...],
    roi: Path | None,
    output: Path | None,
    report: Path | None,
) -> None:
    """Measure a detector on DATA/test, with masks from DATA/ground_truth.

    \b
      diffusionad evaluate images/screw --run runs/screw
      diffusionad evaluate images/screw --repository model_repository --model screw
      diffusionad evaluate images/screw --run runs/screw --denoising iterative
      diffusionad evaluate images/screw --run runs/screw --noise-seed 1 --noise-seed 2
      diffusionad evaluate images/screw --run runs/screw --report screw.html
    """
    from diffusionad_training.data import layout
    from diffusionad_training.evaluation.measure import measure
    from diffusionad_training.evaluation.page import Subject, write_page

    if server.is_flagged if run is not None else not server.is_made:
        raise click.UsageError("give one of --run, --url or --repository")
    if run is None and (tuple(denoising) != ("norm-guided",) or noise_seeds):
        raise click.UsageError(
            "--denoising and --noise-seed go with --run: a served model is fixed"
        )
    found = layout.read(data)
    images = found.require_test()
    for line in found.left_out.described():
        click.echo(f"left out: {line}", err=True)
    for path in (output, report):  # what cannot be written is known before the work
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    with _open(
        run, server, model, denoising, noise_seeds, roi, has_page=report is not None
    ) as detector:
        if detector.warning is not None:
            click.echo(f"Warning: {detector.warning}", err=True)
        with _progress(len(images) * len(detector.scorers)) as bar:
            measured = {
                way: measure(
                    scorer,
                    data,
                    images,
                    detector=detector.identity,
                    roi=detector.roi,
                    advance=bar,
                )
                for way, scorer in detector.scorers.items()
            }
    results = {way: one.evaluation for way, one in measured.items()}
    if output is not None:
        _write(output, results)
    if report is not None:
        subject = Subject(detector.title, data, detector.roi, detector.warning)
        write_page(report, subject, measured)
    if len(results) == 1:
        _print(*results.values())
    else:
        # Between ways to denoise, a spread would mean nothing.
        _print_side_by_side(results, with_spread=len(denoising) == 1)
        _print_notes(next(iter(results.values())))


@contextmanager
def _open(
    run: Path | None,
    server: ServerChoice,
    model: str | None,
    denoising: tuple[str, ...],
    noise_seeds: tuple[int, ...],
    roi: Path | None,
    *,
    has_page: bool,
) -> Iterator[Detector]:
    from diffusionad_training.evaluation import detectors

    if run is not None:
        yield detectors.of_run(run, denoising, noise_seeds=noise_seeds, mask=roi)
        return
    with (
        server.open() as connection,
        detectors.of_server(connection, model, mask=roi, reconstruction=has_page) as detector,
    ):
        yield detector


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal; yields the function that advances it."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("scoring"),
        *Progress.get_default_columns()[1:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("scoring", total=total)
        yield lambda: progress.advance(task)


def _write(output: Path, results: dict[str, Evaluation]) -> None:
    """Write one evaluation as it is, several as an object by way of denoising."""
    import json

    from diffusionad_client.files import write_aside

    documents = {way: result.to_json() for way, result in results.items()}
    text = next(iter(documents.values()))
    if len(results) > 1:
        text = json.dumps({way: json.loads(one) for way, one in documents.items()}, indent=2)
    write_aside(output, f"{text}\n".encode())


_COLUMNS = ("image AUROC", "pixel AUROC", "PRO", "pixel AP")  # of every table, see _figures


def _figures(one: Evaluation | ClassFigures) -> tuple[float | None, ...]:
    return one.image_auroc, one.pixel_auroc, one.pro, one.pixel_average_precision


def _print_side_by_side(results: dict[str, Evaluation], *, with_spread: bool) -> None:
    from diffusionad_client.tables import print_table

    headings = ("denoising", *_COLUMNS, "images/s")
    figures = {way: _figures(result) for way, result in results.items()}
    rows = [
        (way, *map(_percent, figures[way]), f"{len(r.images) / r.seconds:.2f}")
        for way, r in results.items()
    ]
    if with_spread:
        spread = (_spread(column) for column in zip(*figures.values(), strict=True))
        rows.append(("largest - smallest", *map(_percent, spread), ""))
    print_table(headings, rows, numbers=5)


def _spread(values: Sequence[float | None]) -> float | None:
    """How far apart they lie; None where one is undefined."""
    defined = [value for value in values if value is not None]
    return max(defined) - min(defined) if len(defined) == len(values) else None


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f}"


def _print(result: Evaluation) -> None:
    from diffusionad_client.tables import print_table

    names = {
        "image_auroc": "image AUROC",
        "image_average_precision": "image AP",
        "image_f1_max": "image F1-max",
        "pixel_auroc": "pixel AUROC",
        "pixel_average_precision": "pixel AP",
        "pro": "PRO",
    }
    for key, value in result.metrics.items():
        click.echo(f"{names[key]:<14}{_percent(value):>10}")
    if result.by_class:
        click.echo()
        print_table(
            ("defect", "images", *_COLUMNS),
            [
                (defect, str(one.images), *map(_percent, _figures(one)))
                for defect, one in result.by_class.items()
            ],
            numbers=5,
        )
        click.echo()
    _print_notes(result)
    click.echo(f"{len(result.images)} images in {result.seconds:.1f} s")


def _print_notes(result: Evaluation) -> None:
    """Say which images do not count, and where."""
    if result.outside:
        click.echo(
            "defective images without a defect inside the region of interest, which are not "
            f"counted: {result.outside}"
        )
    if result.without_mask:
        click.echo(
            "defective images without a mask, which are not in the pixel metrics: "
            f"{result.without_mask}"
        )
    for remark in result.remarks:
        click.echo(remark)
