"""Image files that wait to be decoded, on a real Triton whose one decoder takes its time."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import tritonclient.grpc as triton
from PIL import Image

from diffusionad_client import Client, Priority, contract, errors
from diffusionad_tools.release import model_config
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

pytestmark = pytest.mark.server

DECODING = "image_decoding_32"
DECODES_IN_S = 0.15
WAITING = 12
# One is decoded, two lie ready for the process: no priority reaches those.
BEFORE_THE_QUEUE = 3


@pytest.fixture(scope="module")
def server(
    shared_bundles: Any, publish_ungated: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonProcess]:
    repository = tmp_path_factory.mktemp("decoding") / "repository"
    publish_ungated(shared_bundles(), repository, encoded=True)
    path = repository / DECODING / "config.pbtxt"
    config = model_config.read(path)
    config.instance_group[0].count = 1
    config.dynamic_batching.default_queue_policy.max_queue_size = WAITING
    path.write_text(model_config.render(config))
    model = repository / DECODING / "1" / "model.py"
    fast = model.read_text()
    slow = fast.replace("decoded = []", f"decoded = []; __import__('time').sleep({DECODES_IN_S})")
    assert slow != fast
    model.write_text(slow)
    with running_server(ServerSettings(repository=repository)) as started:
        yield started


def a_file() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 48), "grey").save(file, "PNG")
    return file.getvalue()


def executions(raw: Any, model: str) -> tuple[int, int]:
    """How many files a model has taken, and in how many runs."""
    (about,) = raw.get_inference_statistics(model).model_stats
    return int(about.inference_count), int(about.execution_count)


def inspect(client: Client, priority: Priority) -> float:
    """Send a file; give the time of the answer."""
    client.inspect(a_file(), decode="server", priority=priority, anomaly_map=False, timeout=30)
    return time.monotonic()


def test_an_urgent_file_goes_before_those_that_wait_and_each_is_decoded_by_itself(
    server: TritonProcess,
) -> None:
    with (
        triton.InferenceServerClient(server.grpc_url) as raw,
        Client(server.grpc_url, retry=False) as client,
        ThreadPoolExecutor(WAITING + 1) as pool,
    ):
        client.served()
        files, runs = executions(raw, DECODING)
        waiting = [pool.submit(inspect, client, Priority.BATCH) for _ in range(WAITING)]
        time.sleep(DECODES_IN_S)
        urgent = inspect(client, Priority.INLINE)
        answered = sorted(one.result() for one in waiting)
        assert sum(batch < urgent for batch in answered) <= BEFORE_THE_QUEUE + 2
        after = executions(raw, DECODING)
        assert (after[0] - files, after[1] - runs) == (WAITING + 1, WAITING + 1)


def test_a_full_queue_of_files_turns_the_next_away_and_nothing_that_was_decoded(
    server: TritonProcess,
) -> None:
    sent = 2 * WAITING
    with (
        triton.InferenceServerClient(server.grpc_url) as raw,
        Client(server.grpc_url, retry=False) as client,
        ThreadPoolExecutor(sent) as pool,
    ):
        client.served()
        before, _ = executions(raw, DECODING)
        asked = [pool.submit(inspect, client, Priority.BATCH) for _ in range(sent)]
        failures = [failure for one in asked if (failure := one.exception()) is not None]
        decoded = executions(raw, DECODING)[0] - before
    assert failures
    assert {type(failure) for failure in failures} == {errors.ServerBusyError}
    assert all(failure.retryable for failure in failures)
    assert decoded == sent - len(failures)


def test_the_queue_of_files_has_the_networks_policy() -> None:
    files = model_config.decoding_config(32).dynamic_batching
    pixels = model_config.step_config("widget", contract.Step.NOISE_PREDICTION, 32, [1])
    policy = files.default_queue_policy
    assert policy.max_queue_size == model_config.MAX_WAITING_FILES
    policy.max_queue_size = model_config.MAX_QUEUE_SIZE
    del files.preferred_batch_size[:]  # each is decoded by itself
    files.max_queue_delay_microseconds = 0
    assert files == pixels.dynamic_batching
