"""The images that tell most of a detector, chosen while it scores: a bounded few are kept."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusionad_training.data.layout import Sample
from diffusionad_training.evaluation.scorers import Scored

OF_EACH_KIND = 6  # images kept: lowest defective, highest defective, highest good


@dataclass(frozen=True, eq=False)
class Example:
    """An image with all that a picture of it needs; the arrays are its own, at the model's size."""

    sample: Sample
    score: float
    anomaly_map: NDArray[np.float32]  # (S, S) in [0, 1]
    reconstruction: NDArray[np.uint8] | None  # (S, S, 3)
    mask: NDArray[np.bool_] | None  # (S, S) ground truth; None if it is not known


class Examples:
    """The best and the worst of the images it is shown: at most three times `limit` are held."""

    def __init__(self, limit: int = OF_EACH_KIND) -> None:
        self._limit = limit
        self._lowest_defective = _Highest(limit)  # by the score's negative
        self._highest_defective = _Highest(limit)
        self._highest_good = _Highest(limit)
        self._shown = 0
        self._defective = 0

    def show(self, sample: Sample, scored: Scored, mask: NDArray[np.bool_] | None) -> None:
        """Keep the image if it is among the best or worst so far. `mask` is (S, S)."""
        number = self._shown  # makes one order of equal scores too, read from either end
        self._shown += 1
        if not sample.is_defective:
            self._highest_good.offer((scored.score, -number), sample, scored, mask)
            return
        self._defective += 1
        self._lowest_defective.offer((-scored.score, number), sample, scored, mask)
        self._highest_defective.offer((scored.score, -number), sample, scored, mask)

    @property
    def missed(self) -> list[Example]:
        """The defective images with the lowest scores, those first."""
        return self._lowest_defective.kept[: (self._defective + 1) // 2]

    @property
    def found(self) -> list[Example]:
        """The defective images with the highest scores, those first; none that is in `missed`."""
        return self._highest_defective.kept[: self._defective // 2]

    @property
    def false_alarms(self) -> list[Example]:
        """The good images with the highest scores, those first."""
        return self._highest_good.kept


class _Highest:
    """The examples of the highest ranks, no two of which are equal."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[tuple[float, int], Example]] = []  # the lowest rank first

    def offer(
        self,
        rank: tuple[float, int],
        sample: Sample,
        scored: Scored,
        mask: NDArray[np.bool_] | None,
    ) -> None:
        if len(self._heap) == self._limit and rank < self._heap[0][0]:
            return
        picture = scored.reconstruction
        example = Example(
            sample,
            scored.score,
            scored.anomaly_map.copy(),  # a view would hold on to its whole batch
            None if picture is None else picture.copy(),
            mask,
        )
        push = heapq.heappush if len(self._heap) < self._limit else heapq.heapreplace
        push(self._heap, (rank, example))

    @property
    def kept(self) -> list[Example]:
        return [example for _, example in sorted(self._heap, key=lambda item: item[0])[::-1]]
