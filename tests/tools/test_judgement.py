"""What an answer was judged by: the graph of a release's thresholds, alone and on a real Triton."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionad_client import contract
from diffusionad_client.artifacts.metadata import ReleaseMetadata, Thresholds
from diffusionad_client.contract import Priority, Step
from diffusionad_client.sdk.transports.grpc import GrpcTransport
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release.check import graph, require_servable
from diffusionad_tools.release.judged import misjudged
from diffusionad_tools.release.judgement import judgement
from diffusionad_tools.release.promote import promote
from diffusionad_tools.release.repository import find_release, read_category
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

OUTPUTS = [tensor.name for tensor in contract.ensemble_signature(32, 2).outputs]
UNIT = st.floats(0, 1)
LIMITS = st.tuples(UNIT, UNIT)
SCORES = st.lists(UNIT | st.just(np.nan), min_size=1, max_size=9)
GOLDEN = "2e84b85cf6845aad566c46233cc3f4700f8c21404049b53af31744b3d73f6854"


@pytest.fixture(scope="module")
def metadata(shared_bundles: Any) -> ReleaseMetadata:
    found: ReleaseMetadata = shared_bundles().metadata
    return found.changed(contract=2)


def judge(metadata: ReleaseMetadata, scores: list[float]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(judgement(metadata))
    names = [output.name for output in session.get_outputs()]
    batch = np.array(scores, np.float32).reshape(-1, 1)
    return dict(zip(names, session.run(None, {contract.UNJUDGED: batch}), strict=True))


@settings(deadline=None)
@given(limits=LIMITS, scores=SCORES)
def test_the_graph_gives_the_verdict_that_the_metadata_give(
    metadata: ReleaseMetadata, limits: tuple[float, float], scores: list[float]
) -> None:
    thresholds = Thresholds(accept=min(limits), reject=max(limits))
    judged = judge(metadata.changed(thresholds=thresholds), [*scores, *limits])
    exact = judged[contract.SCORE][:, 0]  # float32, as it comes from the segmentation
    wanted = [thresholds.verdict(float(score)).value for score in exact]
    assert judged[contract.VERDICT][:, 0].tolist() == wanted


def test_every_answer_of_a_batch_names_thresholds_and_release_and_keeps_its_score(
    metadata: ReleaseMetadata,
) -> None:
    judged = judge(metadata, [0.1, 0.25, 0.9])
    np.testing.assert_array_equal(judged["SCORE"], np.array([[0.1], [0.25], [0.9]], np.float32))
    told = np.array([[0.2, 0.3, metadata.pixel_threshold]] * 3, np.float32)
    np.testing.assert_array_equal(judged["THRESHOLDS"], told)
    assert judged["RELEASE"].tolist() == [[metadata.release]] * 3


def test_the_graph_is_the_same_bytes_everywhere_and_stays_so(metadata: ReleaseMetadata) -> None:
    """Repositories hold these bytes: another graph would need a contract of its own."""
    fixed = metadata.changed(digests=dict.fromkeys(metadata.digests, "0"))
    written = judgement(fixed)
    assert written == judgement(fixed)
    assert hashlib.sha256(written).hexdigest() == GOLDEN
    model = onnx.load_from_string(written)
    assert model.ir_version <= 10
    assert [opset.version for opset in model.opset_import] == [18]
    assert len(written) < 2000


@pytest.fixture(scope="module")
def repository(
    shared_bundles: Any, publish_ungated: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "repository"
    publish_ungated(shared_bundles(), folder, encoded=True)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonProcess]:
    with running_server(ServerSettings(repository=repository)) as started:
        yield started


@pytest.mark.server
def test_a_server_answers_whichever_outputs_are_asked_for(
    server: TritonProcess, handmade_model: Any
) -> None:
    """Triton leaves out steps that it thinks nobody needs: see `contract.tensor_in_ensemble`."""
    images = handmade_model().images(2)
    with closing(GrpcTransport(server.grpc_url)) as transport:
        for count in range(1, len(OUTPUTS) + 1):
            for asked in combinations(OUTPUTS, count):
                answer = transport.infer(
                    "widget", images, asked, priority=Priority.INLINE, timeout=30
                )
                assert set(answer.outputs) == set(asked)


@pytest.mark.server
def test_a_server_says_what_it_judged_by_in_batches_of_every_size_and_for_files(
    server: TritonProcess, repository: Path, handmade_model: Any
) -> None:
    served = find_release(repository, "widget").metadata
    images = handmade_model().images(8)
    for size in range(1, 9):
        problems = misjudged(server.grpc_url, served, images[:size], encoded=size == 1, timeout=30)
        assert list(problems) == []
    other = served.changed(thresholds=Thresholds(accept=0, reject=0))
    assert len(list(misjudged(server.grpc_url, other, images, encoded=True, timeout=30))) == 9


def test_a_graph_that_judges_otherwise_is_not_served(
    make_bundle: Any, publish_ungated: Any, handmade_model: Any, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    for gain in (0.25, 0.5):
        publish_ungated(make_bundle(model=handmade_model(gain=gain)), repository)
    first = find_release(repository, "widget", 1)
    require_servable(read_category(repository, "widget"), first)
    lenient = first.metadata.changed(thresholds=Thresholds(accept=0.9, reject=1))
    path = graph(repository, first, Step.JUDGEMENT)
    path.write_bytes(judgement(lenient))
    with pytest.raises(RepositoryError, match=r"does not judge as the release's metadata"):
        promote(repository, "widget", 1)
    assert find_release(repository, "widget").version == 2
