"""Waiting in Triton's queue, under a configuration chosen by name.

The server of these tests holds every request back for a second in the hope of
a full batch, and lets three of a priority wait: a busy server that stays idle.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from diffusionad_client import Client, Priority, errors
from diffusionad_client.contract import Step
from diffusionad_client.sdk.transports.errors import translate
from diffusionad_client.testing.faults import Fault, refusal
from diffusionad_tools.release import model_config
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

pytestmark = pytest.mark.server

HELD_S = 1.0
WAITING = 3
IMAGE = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def server(
    shared_bundles: Any, publish_ungated: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonProcess]:
    repository = tmp_path_factory.mktemp("queue") / "line 1's models (new)"
    publish_ungated(shared_bundles(), repository)
    model = repository / f"widget__{Step.NOISE_PREDICTION.value}"
    config = model_config.read(model / "config.pbtxt")
    config.dynamic_batching.max_queue_delay_microseconds = int(HELD_S * 1e6)
    config.dynamic_batching.preferred_batch_size.append(config.max_batch_size)
    config.dynamic_batching.default_queue_policy.max_queue_size = WAITING
    (model / "configs" / "held.pbtxt").write_text(model_config.render(config))
    model = repository / f"widget__{Step.RECONSTRUCTION.value}"
    config = model_config.read(model / "config.pbtxt")
    config.instance_group[0].count = 2
    (model / "configs" / "held.pbtxt").write_text(model_config.render(config))
    with running_server(ServerSettings(repository=repository, config_name="held")) as started:
        yield started


@pytest.fixture
def client(server: TritonProcess) -> Iterator[Client]:
    with Client(server.grpc_url, retry=False) as client:
        client.served()
        yield client


def test_a_model_with_a_configuration_of_that_name_takes_it_and_the_others_the_default(
    server: TritonProcess,
) -> None:
    with triton.InferenceServerClient(server.grpc_url) as raw:
        held, default = (
            raw.get_model_config(f"widget__{step.value}").config.dynamic_batching
            for step in (Step.NOISE_PREDICTION, Step.SEGMENTATION)
        )
    assert held.max_queue_delay_microseconds == HELD_S * 1e6
    assert default.max_queue_delay_microseconds == 0


def test_each_instance_is_a_process(server: TritonProcess, stubs_of: Any) -> None:
    assert len(stubs_of(server.pid)) == 1 + 2 + 1 + 1  # of noise prediction two


def test_a_server_with_a_full_queue_is_busy(client: Client) -> None:
    with ThreadPoolExecutor(2 * WAITING) as pool:
        asked = [pool.submit(client.inspect, IMAGE) for _ in range(2 * WAITING)]
        failures = [one.exception() for one in asked]
    turned_away = [failure for failure in failures if failure is not None]
    assert len(turned_away) == WAITING
    assert {type(failure) for failure in turned_away} == {errors.ServerBusyError}
    assert all("queue is full" in str(failure) for failure in turned_away)
    for failure in turned_away:
        call: Any = failure.__cause__
        assert as_told(call) == fake_words(Fault.QUEUE_FULL)


def test_a_request_is_dropped_from_the_queue_when_nobody_waits_for_it_any_more(
    server: TritonProcess, client: Client
) -> None:
    with triton.InferenceServerClient(server.grpc_url) as raw:
        before = executions(raw)
        with pytest.raises((errors.DeadlineExceededError, errors.ServerBusyError)):
            client.inspect(IMAGE, timeout=HELD_S / 4)
        client.inspect(IMAGE)
        assert executions(raw) == before + 1


def test_a_request_that_waits_too_long_makes_the_server_busy(server: TritonProcess) -> None:
    with (
        triton.InferenceServerClient(server.grpc_url) as raw,
        pytest.raises(triton.InferenceServerException) as late,
    ):
        raw.infer("widget", [images(1)], timeout=int(HELD_S / 4 * 1e6))  # and waits for the answer
    status = late.value.status().removeprefix("StatusCode.")
    error = translate(status, late.value.message(), "widget", HELD_S)
    assert isinstance(error, errors.ServerBusyError)
    assert "waited too long" in str(error)
    assert (late.value.status(), late.value.message()) == fake_words(Fault.WAITED_TOO_LONG)


def test_an_urgent_request_goes_before_one_that_waits_already(server: TritonProcess) -> None:
    with (
        triton.InferenceServerClient(server.grpc_url) as raw,
        ThreadPoolExecutor(2) as pool,
    ):
        # Five images each: no batch of eight has room for both.
        batch, _ = submit(pool, raw, Priority.BATCH), time.sleep(HELD_S / 4)
        inline = submit(pool, raw, Priority.INLINE)
        assert inline.result(timeout=10) < batch.result(timeout=10)


def test_whoever_names_no_priority_waits_behind_who_does(server: TritonProcess) -> None:
    with (
        triton.InferenceServerClient(server.grpc_url) as raw,
        ThreadPoolExecutor(2) as pool,
    ):
        nameless, _ = submit(pool, raw, 0), time.sleep(HELD_S / 4)
        inline = submit(pool, raw, Priority.INLINE)
        assert inline.result(timeout=10) < nameless.result(timeout=10)


def as_told(call: Any) -> tuple[str, str]:
    """Give status and words of a failed call, without the request's own name."""
    return str(call.code()), re.sub(r"id: \w+\]", "id: abc]", call.details())


def fake_words(fault: Fault) -> tuple[str, str]:
    """Give status and words of the client's server for tests."""
    told = refusal(fault, "ModelInfer", "widget", "abc")
    assert told is not None
    return str(told.status), told.words


def submit(pool: ThreadPoolExecutor, raw: Any, priority: int) -> Future[float]:
    """Ask for five images at once; the result is when they were answered."""

    def ask() -> float:
        raw.infer("widget", [images(5)], priority=int(priority))
        return time.monotonic()

    return pool.submit(ask)


def images(count: int) -> Any:
    batch = np.zeros((count, *IMAGE.shape), np.uint8)
    return triton.InferInput("IMAGE", batch.shape, "UINT8").set_data_from_numpy(batch)


def executions(raw: Any) -> int:
    (about,) = raw.get_inference_statistics("widget__noise_prediction").model_stats
    return int(about.inference_count)
