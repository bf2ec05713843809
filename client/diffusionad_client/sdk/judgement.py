"""What an answer was judged by, as it came with the score (contract 2), or by its metadata (1).

Pure: nothing here asks a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata, Thresholds, Verdict
from diffusionad_client.errors import ContractError, MetadataError


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it follows from."""

    verdict: Verdict
    thresholds: Thresholds
    pixel_threshold: float
    release: str


def judgement_that_came(tensors: Mapping[str, Any], metadata: ReleaseMetadata) -> Judgement:
    """Read the judgement of one image's tensors, which are those of contract 2.

    Raises `ContractError` if they make no sense.
    """
    word = _text(tensors[contract.VERDICT])
    numbers = np.asarray(tensors[contract.THRESHOLDS], np.float32)
    accept, reject, pixel = _as_written(numbers, metadata)
    try:
        verdict = Verdict(word)
        thresholds = Thresholds.as_stored(accept, reject)
    except (ValueError, MetadataError) as exc:
        raise ContractError(
            f"{metadata.category}: the server judged by {numbers.tolist()} and sent the verdict "
            f"{word!r}: {exc}"
        ) from exc
    return Judgement(verdict, thresholds, pixel, _text(tensors[contract.RELEASE]))


def judge_by_metadata(score: float, metadata: ReleaseMetadata) -> Judgement:
    """Judge an answer of contract 1, which says of itself only which version gave it."""
    limits = metadata.thresholds
    return Judgement(limits.verdict(score), limits, metadata.pixel_threshold, metadata.release)


def release_that_came(outputs: Mapping[str, Any]) -> str | None:
    """Name the release that an answer says it is of; None if it does not say."""
    array = outputs.get(contract.RELEASE)
    return None if array is None or array.size != 1 else _text(array.reshape(1))


def _text(array: Any) -> str:
    value = array[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _as_written(numbers: Any, metadata: ReleaseMetadata) -> list[float]:
    """Give FP32 thresholds in decimals: the release's own, or the shortest that give the same."""
    limits = metadata.thresholds
    own = [limits.accept, limits.reject, metadata.pixel_threshold]
    if [float(np.float32(limit)) for limit in own] == numbers.tolist():
        return own
    return [float(str(number)) for number in numbers]
