"""More than a server can do: what is refused, where, and that nothing hangs or grows.

The short tests have a server whose segmentation holds images back and has room for few, so that
images are refused in the middle of an ensemble: some versions of Triton hang then. The long one
floods the shipped model, and holds the figures of docs/reliability.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from waiting import wait_for

from diffusionad_client import Client
from diffusionad_client.contract import Priority, Step
from diffusionad_tools.benchmarks import overload
from diffusionad_tools.benchmarks.callers import LoadRequest, callers, soon
from diffusionad_tools.release import model_config
from diffusionad_tools.server import linux
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

pytestmark = pytest.mark.server

HELD_S = 0.5
ROOM = 2
FLOOD = 60.0  # requests a second, of which 8 are answered every HELD_S at most
ENOUGH = 15  # images/s of the shipped model, a half of what two cores can do
SHIPPED = Path(__file__).parents[2] / "model_repository"


@pytest.fixture(scope="module")
def server(
    shared_bundles: Any, publish_ungated: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonProcess]:
    repository = tmp_path_factory.mktemp("overload") / "repository"
    publish_ungated(shared_bundles(), repository, encoded=True)
    path = repository / f"widget__{Step.SEGMENTATION.value}" / "configs" / "cpu.pbtxt"
    config = model_config.read(path)
    batching = config.dynamic_batching
    batching.preferred_batch_size[:] = [config.max_batch_size]
    batching.max_queue_delay_microseconds = int(HELD_S * 1e6)
    batching.default_queue_policy.max_queue_size = ROOM
    path.write_text(model_config.render(config))
    settings = ServerSettings(repository=repository, config_name="cpu", metrics_port=0)
    with running_server(settings) as started:
        yield started


def test_an_image_refused_between_two_steps_is_answered_and_the_ensemble_goes_on(
    server: TritonProcess, handmade_model: Any
) -> None:
    (image,) = handmade_model().images(1)
    with Client(server.grpc_url, retry=False) as client:
        expected = client.inspect(image).score
        batch = LoadRequest(server.grpc_url, "widget", image[np.newaxis], Priority.BATCH)
        with callers(1) as crowd:
            calls = crowd.at_rate(batch, FLOOD, 3.0, soon()).result()
        outcomes = Counter(call.error for call in calls)
        assert set(outcomes) == {"", "ServerBusyError"}
        assert sum(outcomes.values()) == FLOOD * 3
        assert all(call.retryable for call in calls if call.error)
        assert max(call.seconds for call in calls) < 4 * HELD_S
        with triton.InferenceServerClient(server.grpc_url) as raw:
            (about,) = raw.get_inference_statistics("widget__noise_prediction").model_stats
        assert about.inference_count > outcomes[""] + 10  # they were refused after the first step
        assert client.inspect(image, timeout=4 * HELD_S).score == expected


FLOODING = """
import sys, time
import numpy as np
from diffusionad_client.contract import Priority
from diffusionad_tools.benchmarks import callers
images = np.zeros((1, 32, 32, 3), np.uint8)
request = callers.LoadRequest(sys.argv[1], "widget", images, Priority.BATCH)
callers._run(callers._at_once, request, 40, 60.0, time.monotonic())
"""


def test_a_client_that_is_killed_leaves_nothing_waiting(
    server: TritonProcess, handmade_model: Any
) -> None:
    (image,) = handmade_model().images(1)
    with subprocess.Popen([sys.executable, "-c", FLOODING, server.grpc_url]) as flood:
        wait_for(lambda: overload.pending(server.metrics_url).total() > 0, 30)
        flood.kill()
    wait_for(lambda: overload.pending(server.metrics_url).total() == 0, 30)
    with Client(server.grpc_url, retry=False) as client:
        client.inspect(image)


def test_images_of_one_request_are_not_held_back_for_being_several(
    server: TritonProcess, handmade_model: Any
) -> None:
    images = handmade_model().images(5)
    tensor = triton.InferInput("IMAGE", images.shape, "UINT8").set_data_from_numpy(images)
    with triton.InferenceServerClient(server.grpc_url) as raw:
        raw.infer("widget__noise_prediction", [tensor], client_timeout=20)


def test_the_later_a_step_the_sooner_it_gets_the_cores(
    server: TritonProcess, stubs_of: Any
) -> None:
    above: dict[str, set[int]] = defaultdict(set)
    for pid in stubs_of(server.pid):
        model = Path(linux.command_line(pid)[1]).parts[-3]
        threads = [int(thread) for thread in os.listdir(f"/proc/{pid}/task")]
        above[model] |= {niceness(thread) - niceness(server.pid) for thread in threads}
    assert above["widget__segmentation"] == above["widget__reconstruction"] == {0}
    assert above["widget__noise_prediction"] == {5}
    assert above["image_decoding_32"] == {10}


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


@pytest.mark.long
@pytest.mark.parametrize("form", overload.FORMS)
def test_under_three_times_the_load_the_server_does_what_it_can_and_refuses_the_rest(
    form: str,
) -> None:
    with overload.serving(SHIPPED) as server:
        found = overload.measure(server, "demo_plate", form, side=320, seconds=8, rounds=2)
    shown = "\n".join(overload.table({form: found}))
    assert found.refused, shown
    assert not found.other_errors, shown
    assert found.line_lost == 0, shown
    assert max(found.waiting.values()) <= 2 * model_config.MAX_QUEUE_SIZE, shown
    assert found.waiting["demo_plate__segmentation"] <= model_config.MAX_BATCH_SIZE, shown
    assert found.growth < 0.05, shown
    if found.saturation < ENOUGH:
        pytest.skip(f"too much else runs here for times and rates to mean anything:\n{shown}")
    assert found.goodput > 0.7, shown  # the page has the figures of a machine with less to do
    assert found.line_s < 8 * found.calm_s, shown
    assert found.normal_s <= 5, shown
