"""Open what is to be measured: a run, in torch, or a served model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusionad_client import Client, Connection, Priority
from diffusionad_client.artifacts.roi import Mask
from diffusionad_training.data.roi import read_roi, served_roi
from diffusionad_training.evaluation.scorers import Scorer, ServerScorer, TorchScorer
from diffusionad_training.method.ablations import Denoising
from diffusionad_training.method.model import draw_noise
from diffusionad_training.run.checkpoint import load_run


@dataclass(frozen=True, eq=False)
class Detector:
    """What is to be measured, ready to score."""

    identity: str  # the digest of a run's weights, or category and release
    title: str  # for people
    scorers: Mapping[str, Scorer]  # by the way to denoise, and by the noise if there are several
    roi: Mask | None  # in which to measure; None: everywhere
    warning: str | None = None  # on what the figures will not say


def of_run(
    folder: Path, ways: Sequence[str], *, noise_seeds: Sequence[int], mask: Path | None
) -> Detector:
    """Load a run as one scorer for each way to denoise and each noise constant.

    Without `noise_seeds` the constant is its own. With a `mask` it inspects that
    region only. Raises `CheckpointError` or `RoiError`.
    """
    run = load_run(folder)
    roi = None if mask is None else read_roi(mask, run.model.config.size)
    model = run.model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.restrict_to(None if roi is None else torch.from_numpy(roi))
    title = f"run {folder.resolve().name}, weights {run.weights_digest[:12]}"
    if not noise_seeds:
        own = {way: TorchScorer(model, Denoising(way)) for way in ways}
        return Detector(run.weights_digest, title, own, roi)
    scorers = {
        way if len(noise_seeds) == 1 else f"{way}, noise {seed}": TorchScorer(
            model, Denoising(way), noise=draw_noise(model.config, seed)
        )
        for way in ways
        for seed in noise_seeds
    }
    drawn = f", noise of seed {', '.join(map(str, noise_seeds))}"
    # No figures of the run's own: no release takes them for its.
    return Detector(run.weights_digest + drawn, title + drawn, scorers, roi)


@contextmanager
def of_server(
    connection: Connection, category: str | None, *, mask: Path | None, reconstruction: bool = False
) -> Iterator[Detector]:
    """Open a served category, by default the server's only one.

    Its region of interest is a constant of its graphs: a `mask` must be that
    one, and tells which pixels to count. Raises `RoiError` if it is not,
    or what the client raises.
    """
    with Client(connection, model=category, priority=Priority.BATCH) as client:
        served = client.served()
        metadata = served.metadata
        name = f"{metadata.category} release {metadata.release}"
        scorer = ServerScorer(client, served.model, metadata.size, reconstruction=reconstruction)
        yield Detector(
            name,
            name,
            {Denoising.NORM_GUIDED.value: scorer},
            None if mask is None else served_roi(mask, name, metadata),
            _warning(name) if mask is None and metadata.roi is not None else None,
        )


def _warning(name: str) -> str:
    return (
        f"{name} inspects a region of interest only: defect pixels outside it count as missed. "
        "Give that region as --roi MASK to leave out what lies outside"
    )
