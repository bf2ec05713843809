"""The gate before a release: does a real server give the answers that training gave?

The candidate is served by an embedded Triton and asked over gRPC through the
client, first for one image at a time, then for all at once, which Triton's
batcher may run together. So the graphs, their configuration, their batching
and the client are on trial; and what the server judges by must be the
release's own. The encoded form, if there is one, must give each
image's file the score that its pixels got. A lower precision is held against
float32 besides, on more images: see `diffusionad_client.artifacts.agreement`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from diffusionad_client.artifacts import agreement
from diffusionad_client.artifacts.bundle import AgreementSet, References
from diffusionad_client.artifacts.metadata import (
    Agreement,
    GateRecord,
    Precision,
    ReleaseMetadata,
    Thresholds,
    Verdict,
)
from diffusionad_client.errors import ServerUnavailableError
from diffusionad_client.sdk.client import Client
from diffusionad_tools.errors import GateError
from diffusionad_tools.release.candidate import Candidate
from diffusionad_tools.release.judged import misjudged
from diffusionad_tools.release.listing import listed
from diffusionad_tools.server.process import ServerSettings, running_server

# The same pixels go through the same graphs; a GPU may add them up in another order.
ENCODED_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Tolerance:
    """How far a served answer may lie from the one expected."""

    score: float  # turns a verdict only if the score lies this close to a threshold
    map: float  # of single pixels, which move more at the edge of a defect than their mean


TOLERANCES = {
    # Other kernels or hardware move a score by 1e-6 to 1e-4, and a pixel by about one
    # of the 256 levels in which a map is drawn.
    Precision.FP32: Tolerance(score=1e-3, map=5e-3),
    # They round a lower precision elsewhere: int8 without integer kernels moved scores
    # by 3e-3 and pixels by 1e-2. That both judge alike is for the agreement to say.
    Precision.FP16: Tolerance(score=5e-3, map=5e-2),
    Precision.INT8: Tolerance(score=1e-2, map=1e-1),
}

_TIMEOUT_S = 120.0  # one image, of the largest model, on a slow CPU
_AT_ONCE = 16


@dataclass(frozen=True)
class Difference:
    """How far the server's answer to one reference image lies from training's."""

    image: int  # index into the references
    expected_score: float
    score: float
    map: float  # largest absolute difference of a pixel
    verdict: Verdict  # the server's
    thresholds: Thresholds  # the bundle's
    tolerance: Tolerance = TOLERANCES[Precision.FP32]

    @property
    def distance(self) -> float:
        """How far the scores lie apart."""
        return abs(self.score - self.expected_score)

    @property
    def within_tolerance(self) -> bool:
        """Tell whether both agree. What is not a number never does."""
        return (
            self.distance <= self.tolerance.score
            and self.map <= self.tolerance.map
            and self._same_verdict
        )

    @property
    def _same_verdict(self) -> bool:
        """Tell whether the verdict is training's, as far as the tolerance decides it."""
        limits = (self.thresholds.accept, self.thresholds.reject)
        near = any(abs(self.expected_score - limit) <= self.tolerance.score for limit in limits)
        return near or self.verdict is self.thresholds.verdict(self.expected_score)

    def __str__(self) -> str:
        return (
            f"reference {self.image}: score {self.score:.6f} and {self.verdict}, training gave "
            f"{self.expected_score:.6f} and {self.thresholds.verdict(self.expected_score)}; "
            f"largest map difference {self.map:.2g}"
        )


def compare(
    candidate: Candidate,
    references: References,
    *,
    ready_timeout: float,
    agreement_set: AgreementSet | None = None,
) -> GateRecord:
    """Serve the candidate and put every reference image to it, one by one and all at once.

    A lower precision brings its `agreement_set`, which is put to it too.
    Returns what was measured. Raises `ServeError` if the server does not start
    or dies, `GateError` if any answer is out of tolerance, or if a precision
    does not judge as float32 does.
    """
    _check_references(candidate, references)
    settings = ServerSettings(repository=candidate.folder, ready_timeout=ready_timeout)
    everyone = range(len(references.images))
    with (
        running_server(settings) as server,
        Client(server.grpc_url, candidate.metadata.category, retry=False) as client,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        ask = partial(_compare_one, client, candidate.metadata, references)
        try:
            alone = [ask(index, timeout=_TIMEOUT_S) for index in everyone]
            judge(candidate, alone, "one by one")
            if candidate.encoded:
                scores = [answer.score for answer in alone]
                for problem in different_as_files(client, references.images, scores):
                    raise GateError(f"{problem}; nothing was published")
            for problem in misjudged(
                server.grpc_url,
                candidate.metadata,
                references.images,
                encoded=candidate.encoded,
                timeout=_TIMEOUT_S * len(everyone),
            ):
                raise GateError(f"{problem}; nothing was published")
            # Each waits for those before it.
            together = list(pool.map(partial(ask, timeout=_TIMEOUT_S * len(everyone)), everyone))
            judge(candidate, together, "all at once")
            agreed = None
            if agreement_set is not None:
                agreed = _measure_agreement(client, pool, candidate.metadata, agreement_set)
            answered = client.health()
        except ServerUnavailableError:
            server.check_alive()  # has the reason, if it died
            raise
    tolerance = TOLERANCES[candidate.metadata.precision]
    return GateRecord(
        references=len(everyone),
        score_difference=max(difference.distance for difference in alone + together),
        score_tolerance=tolerance.score,
        map_difference=max(difference.map for difference in alone + together),
        map_tolerance=tolerance.map,
        server=f"{answered.server} {answered.version}",
        onnxruntime=onnxruntime.__version__,
        agreement=agreed,
    )


def judge(candidate: Candidate, differences: list[Difference], how: str) -> None:
    """Raise `GateError` if any is out of tolerance; `how` says in what way all were asked."""
    failed = [difference for difference in differences if not difference.within_tolerance]
    if not failed:
        return
    tolerance = TOLERANCES[candidate.metadata.precision]
    raise GateError(
        f"{candidate.metadata.category}: the server disagrees with training on {len(failed)} of "
        f"{len(differences)} reference images asked {how} (tolerance: score "
        f"{tolerance.score:g}, map {tolerance.map:g}); nothing was published\n" + listed(failed)
    )


def _compare_one(
    client: Client,
    metadata: ReleaseMetadata,
    references: References,
    index: int,
    *,
    timeout: float,
) -> Difference:
    image = references.images[index]
    inspection = client.inspect(image, reconstruction=False, timeout=timeout)
    if inspection.anomaly_map is None:  # asked for above; the client checks that it came
        raise GateError(f"reference {index}: the server sent no anomaly map")
    return Difference(
        image=index,
        expected_score=float(references.scores[index]),
        score=inspection.score,
        map=float(np.abs(inspection.anomaly_map - references.anomaly_maps[index]).max()),
        verdict=inspection.verdict,
        thresholds=metadata.thresholds,
        tolerance=TOLERANCES[metadata.precision],
    )


def different_as_files(
    client: Client, images: NDArray[np.uint8], scores: Sequence[float]
) -> Iterator[str]:
    """Send images as files; say which get another score than `scores`, those of their pixels."""
    for index, (image, score) in enumerate(zip(images, scores, strict=True)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        inspection = client.inspect(
            file.getvalue(),
            anomaly_map=False,
            reconstruction=False,
            decode="server",
            timeout=_TIMEOUT_S,
        )
        if not abs(inspection.score - score) <= ENCODED_TOLERANCE:
            yield (
                f"reference {index}: as a file it got the score {inspection.score:.6f}, as pixels "
                f"{score:.6f}; the server decodes images differently"
            )


def _measure_agreement(
    client: Client, pool: ThreadPoolExecutor, metadata: ReleaseMetadata, expected: AgreementSet
) -> Agreement:
    """Hold the served scores against float32's. Raises `GateError` if they miss a limit."""
    _check_agreement_set(metadata, expected)
    inspect = partial(
        client.inspect,
        anomaly_map=False,
        reconstruction=False,
        timeout=_TIMEOUT_S * len(expected.images),  # each waits for those before it
    )
    scores = [inspection.score for inspection in pool.map(inspect, expected.images)]
    measured = agreement.measure(expected, scores, metadata.thresholds)
    if not agreement.is_within_limits(measured):
        raise GateError(
            f"{metadata.category}: {metadata.precision} as it is served here does not agree with "
            f"fp32 on {measured.images} images: {agreement.describe(measured)}; nothing was "
            "published. Release a bundle of `diffusionad export --precision fp32`, or release "
            f"{metadata.precision} on hardware like that which will serve it"
        )
    return measured


def _check_references(candidate: Candidate, references: References) -> None:
    size = candidate.metadata.size
    count = len(references.images)
    shapes = {
        "images": (references.images.shape, (count, size, size, 3)),
        "scores": (references.scores.shape, (count,)),
        "anomaly_maps": (references.anomaly_maps.shape, (count, size, size)),
    }
    if count == 0:
        raise GateError("the bundle has no reference images to compare with; export it again")
    for name, (actual, expected) in shapes.items():
        if actual != expected:
            raise GateError(f"the bundle's reference {name} have shape {actual}, not {expected}")


def _check_agreement_set(metadata: ReleaseMetadata, expected: AgreementSet) -> None:
    count = len(expected.images)
    shapes = {
        "images": (expected.images.shape, (count, metadata.size, metadata.size, 3)),
        "anomalous": (expected.anomalous.shape, (count,)),
        "scores": (expected.scores.shape, (count,)),
    }
    if count == 0:
        raise GateError("the bundle has no images to measure agreement with fp32; export it again")
    for name, (actual, wanted) in shapes.items():
        if actual != wanted:
            raise GateError(f"the bundle's agreement {name} have shape {actual}, not {wanted}")
