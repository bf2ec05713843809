"""Ways to score test images: torch on a run, or a running Triton server.

Both start from files and end with a score and a map, so that `evaluate`
measures whole paths and gives the same figures for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusionad_client import Client
from diffusionad_training.data.images import load_all
from diffusionad_training.method.ablations import Denoising, detect
from diffusionad_training.method.model import DiffusionAD

BATCH = 8
REQUESTS_AT_ONCE = 4
_ANSWERS_WAITING = 2 * REQUESTS_AT_ONCE  # at most, if the server is faster than who measures


@dataclass(frozen=True)
class Scored:
    """One image's answer."""

    score: float
    anomaly_map: NDArray[np.float32]  # (S, S) in [0, 1]
    reconstruction: NDArray[np.uint8] | None = None  # (S, S, 3); None if it was not asked for


class Scorer(Protocol):
    """Scores image files, in the order given."""

    @property
    def size(self) -> int:
        """Side S of the maps, in pixels."""

    def score(self, paths: Sequence[Path]) -> Iterator[Scored]:
        """Score images one after the other."""


class TorchScorer:
    """Scores with a trained model, in batches, on the device it is on.

    Another `denoising` than the model's own (see denoising), or another `noise`
    constant, is for comparison.
    """

    def __init__(
        self,
        model: DiffusionAD,
        denoising: Denoising = Denoising.NORM_GUIDED,
        *,
        noise: Tensor | None = None,
    ) -> None:
        self._model = model.eval()
        self._denoising = denoising
        self._noise = model.noise.clone() if noise is None else noise

    @property
    def size(self) -> int:
        """Side of the maps, in pixels."""
        return self._model.config.size

    def score(self, paths: Sequence[Path]) -> Iterator[Scored]:
        """Score images one after the other."""
        for start in range(0, len(paths), BATCH):
            chosen = paths[start : start + BATCH]
            depth = self._model.config.depth
            yield from self.score_arrays(load_all(chosen, self.size, depth=depth))

    @torch.no_grad()
    def score_arrays(self, images: NDArray[np.uint8]) -> Iterator[Scored]:
        """Score images (N, S, S, 3) uint8, N small enough for one batch."""
        self._model.noise.copy_(self._noise)  # scorers with several constants share one model
        batch = torch.from_numpy(images).to(self._model.noise.device)
        detection = detect(self._model, batch, self._denoising)
        maps = detection.anomaly_map.cpu().numpy()
        pictures = detection.reconstruction.cpu().numpy()
        for answer in zip(detection.score.tolist(), maps, pictures, strict=True):
            yield Scored(*answer)


class ServerScorer:
    """Scores through a Triton server, as the line would, a few requests at once.

    Reconstructions are most of an answer's bytes, and asked for only if wanted.
    """

    def __init__(
        self, client: Client, model: str, size: int, *, reconstruction: bool = False
    ) -> None:
        self._client = client
        self._model = model
        self._size = size
        self._reconstruction = reconstruction

    @property
    def size(self) -> int:
        """Side of the maps, in pixels."""
        return self._size

    def score(self, paths: Sequence[Path]) -> Iterator[Scored]:
        """Score images one after the other."""
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            asked: deque[Future[Scored]] = deque()
            for path in paths:
                if len(asked) == _ANSWERS_WAITING:
                    yield asked.popleft().result()
                asked.append(pool.submit(self._one, path))
            while asked:
                yield asked.popleft().result()

    def _one(self, path: Path) -> Scored:
        inspection = self._client.inspect(
            path, model=self._model, reconstruction=self._reconstruction
        )
        assert inspection.anomaly_map is not None  # asked for by default
        return Scored(inspection.score, inspection.anomaly_map, inspection.reconstruction)
