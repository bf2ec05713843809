"""Ask a server what its answers are judged by, and hold that against the release."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import CONTRACTS, RELEASE, SCORE, THRESHOLDS, VERDICT, Step
from diffusionad_client.sdk.transports.base import Batch
from diffusionad_client.sdk.transports.grpc import GrpcTransport
from diffusionad_tools.release.model_config import MAX_BATCH_SIZE


def misjudged(
    url: str,
    metadata: ReleaseMetadata,
    images: NDArray[np.uint8],
    *,
    encoded: bool,
    timeout: float,
) -> Iterator[str]:
    """Say which answers to images, in one batch, are not judged as the release says.

    None is where its contract knows no judgement. `encoded` asks the encoded
    form too, for one of the images.
    """
    if Step.JUDGEMENT not in CONTRACTS[metadata.contract]:
        return
    asked: dict[str, Batch] = {metadata.category: images[:MAX_BATCH_SIZE]}
    if encoded:
        files = np.array([[_png(images[0])]], np.object_)
        asked[contract.encoded_model(metadata.category)] = files
    with closing(GrpcTransport(url)) as transport:
        for model, batch in asked.items():
            answer = transport.infer(
                model,
                batch,
                [SCORE, VERDICT, THRESHOLDS, RELEASE],
                priority=contract.Priority.BATCH,  # the server may be one that works
                timeout=timeout,
                request_id=contract.PROBE_ID,
            )
            columns = (answer.outputs[name] for name in (SCORE, VERDICT, THRESHOLDS, RELEASE))
            for index, (score, verdict, thresholds, release) in enumerate(
                zip(*columns, strict=True)
            ):
                told = (verdict[0].decode(), release[0].decode(), thresholds.tolist())
                wanted = _expected(metadata, float(score[0]))
                if told != wanted:
                    yield f"{model}: answer {index} was judged by {told}, the release says {wanted}"


def _expected(metadata: ReleaseMetadata, score: float) -> tuple[str, str, list[float]]:
    limits = metadata.thresholds
    thresholds = np.array([limits.accept, limits.reject, metadata.pixel_threshold], np.float32)
    return limits.verdict(score).value, metadata.release, thresholds.tolist()


def _png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()
