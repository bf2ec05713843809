"""Thousands of requests through one ensemble: nothing grows, nothing is lost, one failure is one.

The graphs are tiny, so that what is on trial is the server, its stubs and
their way of handing tensors over, not the arithmetic.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import helper, numpy_helper

from diffusionad_client.contract import IMAGE, SCORE, Step
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

pytestmark = [pytest.mark.server, pytest.mark.slow]

IN_FLIGHT = 48
GROWTH = 0.05
FORBIDDEN = 255  # a first pixel of this value makes the graph fail


@pytest.fixture(scope="module")
def server(
    shared_bundles: Any, publish_ungated: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonProcess]:
    repository = tmp_path_factory.mktemp("load") / "repository"
    publish_ungated(shared_bundles(), repository)
    graph = repository / f"widget__{Step.NOISE_PREDICTION.value}" / "1" / "model.onnx"
    onnx.save(failing_for_a_forbidden_pixel(onnx.load(graph)), graph)
    with running_server(ServerSettings(repository=repository)) as started:
        yield started


def failing_for_a_forbidden_pixel(model: onnx.ModelProto) -> onnx.ModelProto:
    """Look the first pixel up in a table that lacks the last of the 256 values."""
    nodes = [
        helper.make_node("Cast", [IMAGE], ["pixels"], to=onnx.TensorProto.INT64),
        helper.make_node("Slice", ["pixels", "start", "end", "axes"], ["pixel"]),
        helper.make_node("Gather", ["table", "pixel"], ["nothing"]),  # of shape (N, 1, 1, 1)
    ]
    constants = {
        "start": np.array([0, 0, 0]),
        "end": np.array([1, 1, 1]),
        "axes": np.array([1, 2, 3]),
        "table": np.zeros(FORBIDDEN, np.float32),
    }
    (scale,) = (node for node in model.graph.node if node.output[0] == "grey")
    scale.output[0] = "grey_alone"
    nodes.append(helper.make_node("Add", ["grey_alone", "nothing"], ["grey"]))
    others = [node for node in model.graph.node if node is not scale]
    del model.graph.node[:]
    model.graph.node.extend([scale, *nodes, *others])
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize(
    ("warmup", "requests"),
    [
        # Every process has met its largest batch, and its allocator has settled.
        (1_500, 1_500),
        pytest.param(3_000, 10_000, marks=pytest.mark.long),
    ],
)
def test_memory_is_flat_over_thousands_of_requests(
    server: TritonProcess, handmade_model: Any, stubs_of: Any, warmup: int, requests: int
) -> None:
    model = handmade_model()
    images = model.images(16)
    images[:, 0, 0, 0] = 0
    scores = [model.answer(image)[0] for image in images]
    pids = [server.pid, *stubs_of(server.pid)]
    assert len(pids) == 1 + len(Step)

    with triton.InferenceServerClient(server.grpc_url) as client:
        send(client, images, warmup)
        before = {pid: resident_bytes(pid) for pid in pids}
        answers = send(client, images, requests)
        after = {pid: resident_bytes(pid) for pid in pids}

    assert all(after[pid] <= before[pid] * (1 + GROWTH) for pid in pids), (before, after)
    assert len(answers) == requests
    for number, answer in enumerate(answers):
        assert not isinstance(answer, Exception), answer
        assert answer == pytest.approx(scores[number % len(images)], abs=1e-6)


def test_one_bad_request_among_many_fails_alone(server: TritonProcess, handmade_model: Any) -> None:
    model = handmade_model()
    images = model.images(16)
    images[:, 0, 0, 0] = 0
    images[5, 0, 0, 0] = FORBIDDEN

    with triton.InferenceServerClient(server.grpc_url) as client:
        answers = send(client, images, 320)
        (about,) = client.get_inference_statistics(
            f"widget__{Step.NOISE_PREDICTION.value}"
        ).model_stats

    assert about.execution_count < about.inference_count  # some ran together
    failed = {number for number, answer in enumerate(answers) if isinstance(answer, Exception)}
    assert failed == set(range(5, 320, 16))
    reasons = Counter(str(answers[number]) for number in failed)
    assert all("indices element out of data bounds" in reason for reason in reasons), reasons
    for number in set(range(320)) - failed:
        assert answers[number] == pytest.approx(model.answer(images[number % 16])[0], abs=1e-6)


def send(client: Any, images: np.ndarray[Any, Any], count: int) -> list[Any]:
    """Ask for the scores of `count` images, in turn; give each score, or the error, in order."""
    answers: list[Any] = [None] * count
    free = threading.Semaphore(IN_FLIGHT)
    inputs = [
        triton.InferInput(IMAGE, (1, *image.shape), "UINT8").set_data_from_numpy(image[np.newaxis])
        for image in images
    ]
    wanted = [triton.InferRequestedOutput(SCORE)]

    def keep(number: int, result: Any, error: Exception | None) -> None:
        answers[number] = error if error is not None else result.as_numpy(SCORE).item()
        free.release()

    for number in range(count):
        assert free.acquire(timeout=120), f"no answer for 120 s, after {number} requests"
        client.async_infer(
            "widget",
            [inputs[number % len(inputs)]],
            outputs=wanted,
            callback=lambda result, error, number=number: keep(number, result, error),
        )
    for _ in range(IN_FLIGHT):
        assert free.acquire(timeout=120), "an answer is missing"
    return answers


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own or shared, and in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
