"""Open what is to be measured: a run, in torch, or a served model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusionad_client import Client, Priority, roi
from diffusionad_client.local_server import serve_repository
from diffusionad_training.checkpoint import load_run
from diffusionad_training.denoising import Denoising
from diffusionad_training.model import draw_noise
from diffusionad_training.region import read_region, served_region
from diffusionad_training.scorers import Scorer, ServerScorer, TorchScorer


@dataclass(frozen=True, eq=False)
class Detector:
    """What is to be measured, ready to score."""

    identity: str  # the digest of a run's weights, or category and release
    title: str  # for people
    scorers: Mapping[str, Scorer]  # by the way to denoise
    region: roi.Mask | None  # in which to measure; None: everywhere
    warning: str | None = None  # on what the figures will not say


def of_run(
    folder: Path, ways: Sequence[str], *, noise_seed: int | None, mask: Path | None
) -> Detector:
    """Load a run as one scorer for each way to denoise.

    With a `noise_seed` its noise constant is another, with a `mask` it
    inspects that region only. Raises `CheckpointError` or `RegionError`.
    """
    run = load_run(folder)
    region = None if mask is None else read_region(mask, run.model.config.size)
    if noise_seed is not None:
        run.model.noise.copy_(draw_noise(run.model.config.size, noise_seed))
    model = run.model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.restrict_to(None if region is None else torch.from_numpy(region))
    scorers = {way: TorchScorer(model, Denoising(way)) for way in ways}
    title = f"run {folder.resolve().name}, weights {run.weights_digest[:12]}"
    if noise_seed is not None:
        title += f", noise of seed {noise_seed}"
    return Detector(run.weights_digest, title, scorers, region)


@contextmanager
def of_repository(
    folder: Path, category: str | None, *, mask: Path | None, reconstruction: bool = False
) -> Iterator[Detector]:
    """Serve a repository for the while; then as `of_server`."""
    with (
        serve_repository(folder) as url,
        of_server(url, category, mask=mask, reconstruction=reconstruction) as detector,
    ):
        yield detector


@contextmanager
def of_server(
    url: str, category: str | None, *, mask: Path | None, reconstruction: bool = False
) -> Iterator[Detector]:
    """Open a served category, by default the server's only one.

    Its region of interest is a constant of its graphs: a `mask` must be that
    one, and tells which pixels to count. Raises `RegionError` if it is not,
    or what the client raises.
    """
    with Client(url, model=category, priority=Priority.BATCH) as client:
        served = client.served()
        metadata = served.metadata
        name = f"{metadata.category} release {metadata.release}"
        scorer = ServerScorer(client, served.model, metadata.size, reconstruction=reconstruction)
        yield Detector(
            name,
            name,
            {Denoising.NORM_GUIDED.value: scorer},
            None if mask is None else served_region(mask, name, metadata),
            _warning(name) if mask is None and metadata.roi is not None else None,
        )


def _warning(name: str) -> str:
    return (
        f"{name} inspects a region of interest only: defect pixels outside it count as missed. "
        "Give that region as --roi MASK to leave out what lies outside"
    )
