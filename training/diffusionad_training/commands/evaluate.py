"""`diffusionad evaluate`: image and pixel metrics on labelled test images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from diffusionad_training.evaluation import Evaluation
    from diffusionad_training.scorers import Scorer


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="Measure a run, in torch.")
@click.option("--url", help="Measure a served model, at HOST:PORT.")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help="Measure a released model: serves the repository for the while.",
)
@click.option("--model", help="Category to measure, with --url or --repository.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write everything as JSON."
)
def evaluate(
    data: Path,
    run: Path | None,
    url: str | None,
    repository: Path | None,
    model: str | None,
    output: Path | None,
) -> None:
    r"""Measure a detector on DATA/test, with masks from DATA/ground_truth.

    \b
      diffusionad evaluate images/screw --run runs/screw
      diffusionad evaluate images/screw --repository model_repository --model screw
    """
    from diffusionad_training import evaluation
    from diffusionad_training.data import layout

    if sum(place is not None for place in (run, url, repository)) != 1:
        raise click.UsageError("give one of --run, --url or --repository")
    images = layout.read(data).require_test()
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    with _scorer(run, url, repository, model) as (scorer, detector), _progress(len(images)) as bar:
        result = evaluation.evaluate(scorer, data, images, detector=detector, advance=bar)
    if output is not None:
        partial = output.with_name(output.name + ".part")
        partial.write_text(result.to_json() + "\n", encoding="utf-8")
        partial.replace(output)
    _print(result)


@contextmanager
def _scorer(
    run: Path | None, url: str | None, repository: Path | None, model: str | None
) -> Iterator[tuple[Scorer, str]]:
    """Open what is to be measured, and name it."""
    import torch

    from diffusionad_client import Client
    from diffusionad_client.local_server import serve_repository
    from diffusionad_training.checkpoint import load_run
    from diffusionad_training.scorers import ServerScorer, TorchScorer

    if run is not None:
        trained = load_run(run)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        yield TorchScorer(trained.model.to(device)), trained.weights_digest
    elif repository is not None:
        with serve_repository(repository) as served, _scorer(None, served, None, model) as opened:
            yield opened
    elif url is not None:
        with Client(url, model=model) as client:
            served_model = client.served()
            metadata = served_model.metadata
            yield (
                ServerScorer(client, served_model.model, metadata.size),
                (f"{metadata.category} release {metadata.release}"),
            )


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


def _print(result: Evaluation) -> None:
    def percent(value: float | None) -> str:
        return "undefined" if value is None else f"{100 * value:.1f}"

    names = {
        "image_auroc": "image AUROC",
        "image_average_precision": "image AP",
        "pixel_auroc": "pixel AUROC",
        "pixel_average_precision": "pixel AP",
        "pro": "PRO",
    }
    for key, value in result.metrics.items():
        click.echo(f"{names[key]:<24}{percent(value):>10}")
    for defect, value in result.auroc_by_defect.items():
        click.echo(f"{'  image AUROC, ' + defect:<24}{percent(value):>10}")
    if result.without_mask:
        click.echo(f"{result.without_mask} defective images have no mask: not in the pixel metrics")
    click.echo(f"{len(result.images)} images in {result.seconds:.1f} s")
