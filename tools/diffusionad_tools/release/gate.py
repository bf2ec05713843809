"""The gate before a release: does a real server give the answers that training gave?

The candidate is served by an embedded Triton and asked over gRPC through the
client, so that the graphs, their configuration, the batching and the client
are all on trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionad_client.bundle import References
from diffusionad_client.client import Client
from diffusionad_tools.errors import GateError
from diffusionad_tools.release.candidate import Candidate
from diffusionad_tools.server.process import ServerSettings, running_server

# Float32 on other kernels or hardware moves a score by 1e-6 to 1e-4; scores and
# thresholds are shown with three decimals, so no verdict seen would differ.
SCORE_TOLERANCE = 1e-3
# Single pixels at the edge of a defect move more than their mean. This is about
# one of the 256 levels in which a map is drawn.
MAP_TOLERANCE = 5e-3

_TIMEOUT_S = 120.0  # one image, of the largest model, on a slow CPU
_SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """How far the server's answer to one reference image lies from training's."""

    image: int  # index into the references
    expected_score: float
    score: float
    map: float  # largest absolute difference of a pixel

    @property
    def within_tolerance(self) -> bool:
        """Tell whether both agree. What is not a number never does."""
        distance = abs(self.score - self.expected_score)
        return distance <= SCORE_TOLERANCE and self.map <= MAP_TOLERANCE

    def __str__(self) -> str:
        return (
            f"reference {self.image}: score {self.score:.6f}, training gave "
            f"{self.expected_score:.6f}; largest map difference {self.map:.2g}"
        )


def compare(candidate: Candidate, references: References) -> list[Difference]:
    """Serve the candidate and put every reference image to it.

    Raises `GateError` if the server fails or any answer is out of tolerance.
    """
    _check_references(candidate, references)
    with (
        running_server(ServerSettings(repository=candidate.folder)) as server,
        Client(server.grpc_url, candidate.metadata.category, timeout=_TIMEOUT_S) as client,
    ):
        differences = [
            _compare_one(client, references, index) for index in range(len(references.images))
        ]
    judge(candidate, differences)
    return differences


def judge(candidate: Candidate, differences: list[Difference]) -> None:
    """Raise `GateError`, with the differences, if any is out of tolerance."""
    failed = [difference for difference in differences if not difference.within_tolerance]
    if not failed:
        return
    lines = [f"  {difference}" for difference in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"  and {len(failed) - _SHOWN} more")
    raise GateError(
        f"{candidate.metadata.category}: the server disagrees with training on {len(failed)} of "
        f"{len(differences)} reference images (tolerance: score {SCORE_TOLERANCE:g}, map "
        f"{MAP_TOLERANCE:g}); nothing was published\n" + "\n".join(lines)
    )


def _compare_one(client: Client, references: References, index: int) -> Difference:
    inspection = client.inspect(references.images[index], reconstruction=False)
    if inspection.anomaly_map is None:  # asked for above; the client checks that it came
        raise GateError(f"reference {index}: the server sent no anomaly map")
    return Difference(
        image=index,
        expected_score=float(references.scores[index]),
        score=inspection.score,
        map=float(np.abs(inspection.anomaly_map - references.anomaly_maps[index]).max()),
    )


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
