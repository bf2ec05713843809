from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from typing import Any

import grpc
import numpy as np
import pytest
from waiting import wait_for

from diffusionad_client import Client, Connection, Priority, contract, errors
from diffusionad_client.sdk.connection import check_url
from diffusionad_client.sdk.transports.channel import channel_options
from diffusionad_client.testing import Fault, Refusal

IMAGE = np.zeros((8, 8, 3), np.uint8)
Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (Code.UNAVAILABLE, "[request id: 1] Exceeds maximum queue size", errors.ServerBusyError),
        (Code.UNAVAILABLE, "Request timeout expired", errors.ServerBusyError),
        (
            Code.UNAVAILABLE,
            "This protocol is restricted, expecting header 'triton-grpc-protocol-x'",
            errors.AccessDeniedError,
        ),
        (Code.UNAVAILABLE, "Socket closed", errors.ServerUnavailableError),
        (Code.PERMISSION_DENIED, "no", errors.AccessDeniedError),
        (Code.UNAUTHENTICATED, "who", errors.AccessDeniedError),
        (Code.DEADLINE_EXCEEDED, "late", errors.DeadlineExceededError),
        (Code.NOT_FOUND, "gone", errors.ModelNotFoundError),
        (
            Code.UNAVAILABLE,
            "Request for unknown model: 'screw' has no available versions",
            errors.ModelNotFoundError,
        ),
        (Code.UNAVAILABLE, "Server is stopping", errors.ServerUnavailableError),
        (Code.UNAVAILABLE, "Server not ready", errors.ServerUnavailableError),
        (Code.INTERNAL, "Stub process 's_0_0' is not healthy.", errors.ServerUnavailableError),
        (Code.INTERNAL, "The stub process has exited", errors.ServerUnavailableError),
        (Code.UNKNOWN, "Stub process 's' has died", errors.ServerUnavailableError),
        (
            Code.UNAVAILABLE,
            "Request for unknown model: 'queue' version 1 is not at ready state",
            errors.ModelNotFoundError,
        ),
        (Code.INVALID_ARGUMENT, "unexpected shape", errors.InferenceError),
        (Code.INTERNAL, "onnx runtime error 6", errors.InferenceError),
        (Code.UNIMPLEMENTED, "unknown service", errors.ContractError),
    ],
)
def test_each_failure_of_a_request_has_its_error(
    triton: Any, code: Any, message: str, expected: type[Exception]
) -> None:
    triton.fail(Refusal(code, message))
    with Client(triton.url, retry=False) as client, pytest.raises(expected) as caught:
        client.inspect(IMAGE)
    assert type(caught.value) is expected
    assert caught.value.__cause__ is not None
    assert triton.url in str(caught.value)


def test_a_server_that_is_not_there_is_named_and_worth_another_try(dead_url: str) -> None:
    with Client(dead_url) as client, pytest.raises(errors.ServerUnavailableError) as caught:
        client.health()
    assert dead_url in str(caught.value)
    assert caught.value.retryable


def test_where_the_index_is_restricted_a_named_category_still_works(triton: Any) -> None:
    triton.fail(Fault.RESTRICTED, "RepositoryIndex")
    with Client(triton.url) as client:
        assert client.inspect(IMAGE, model="screw").score == 0
        with pytest.raises(errors.AccessDeniedError):
            client.models()
        with pytest.raises(errors.ModelNotFoundError, match="nut"):
            client.inspect(IMAGE, model="nut")


def test_after_an_outage_the_release_is_asked_for_again(triton: Any, make_category: Any) -> None:
    with Client(triton.url) as client:
        client.inspect(IMAGE)
        triton.fail(Fault.BROKEN_LINE)
        with pytest.raises(errors.ServerUnavailableError):
            client.inspect(IMAGE, timeout=2.0)
        triton.heal()
        triton.serve(make_category(release="b" * 64))  # another server, counting from 1 again
        assert client.inspect(IMAGE).release == "b" * 64


def test_after_an_answer_that_never_came_the_release_is_asked_for_again(
    triton: Any, make_category: Any
) -> None:
    with Client(triton.url) as client:
        client.inspect(IMAGE)
        triton.slow_s = 1.0
        with pytest.raises(errors.DeadlineExceededError):
            client.inspect(IMAGE, timeout=0.3)
        triton.slow_s = 0
        triton.serve(make_category(release="b" * 64))
        assert client.inspect(IMAGE).release == "b" * 64


def test_a_last_try_without_time_does_not_hide_why_there_was_no_answer(triton: Any) -> None:
    with Client(triton.url) as client, ThreadPoolExecutor(1) as pool:
        client.inspect(IMAGE)
        asked = triton.counts["ModelInfer"]
        triton.fail(Fault.QUEUE_FULL)
        found = pool.submit(client.inspect, IMAGE, timeout=1.5)
        wait_for(lambda: triton.counts["ModelInfer"] > asked)
        triton.slow_s = 2.0  # the next try gets no answer in time
        triton.heal()
        with pytest.raises(errors.ServerBusyError, match="queue is full") as caught:
            found.result(timeout=10)
    assert isinstance(caught.value.__cause__, errors.DeadlineExceededError)


def test_a_request_that_a_blip_fails_is_sent_again(triton: Any) -> None:
    triton.fail(Fault.BROKEN_LINE)
    with Client(triton.url) as client, ThreadPoolExecutor(1) as pool:
        found = pool.submit(client.inspect, IMAGE)
        wait_for(lambda: triton.counts["ModelInfer"] >= 2)
        triton.heal()
        assert found.result(timeout=10).score == 0


def test_a_release_that_comes_with_the_server_after_a_blip_judges_the_same_request(
    triton: Any, make_category: Any
) -> None:
    with Client(triton.url) as client, ThreadPoolExecutor(1) as pool:
        client.inspect(IMAGE)
        triton.fail(Fault.BROKEN_LINE)
        found = pool.submit(client.inspect, IMAGE)
        wait_for(lambda: triton.counts["ModelInfer"] >= 2)
        triton.serve(make_category(release="b" * 64))  # version 1, too
        triton.heal()
        assert found.result(timeout=10).release == "b" * 64


def test_a_full_queue_is_asked_again_with_longer_and_longer_pauses(triton: Any) -> None:
    triton.fail(Fault.QUEUE_FULL)
    started = time.monotonic()
    with Client(triton.url) as client, pytest.raises(errors.ServerBusyError):
        client.inspect(IMAGE, timeout=1.0)
    assert time.monotonic() - started < 2.0
    assert 3 <= triton.counts["ModelInfer"] <= 6


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("in ensemble 'screw', Exceeds maximum queue size", "the server's queue is full"),
        ("in ensemble 'screw', Request timeout expired", "waited too long in the server's queue"),
    ],
)
def test_a_busy_server_says_in_what_way(triton: Any, message: str, said: str) -> None:
    triton.fail(Refusal(Code.UNAVAILABLE, message))
    with (
        Client(triton.url, retry=False) as client,
        pytest.raises(errors.ServerBusyError, match=said),
    ):
        client.inspect(IMAGE)


def test_a_request_goes_before_those_of_a_batch_unless_it_says_otherwise(triton: Any) -> None:
    with Client(triton.url) as client, Client(triton.url, priority=Priority.BATCH) as batch:
        client.inspect(IMAGE)
        client.inspect(IMAGE, priority=Priority.BATCH)
        batch.inspect(IMAGE)
        batch.inspect(IMAGE, priority=Priority.INLINE)
    sent = [request.priority for request in triton.requests]
    assert sent == [1, 2, 2, 1]


def test_the_server_is_told_how_long_the_request_is_waited_for(triton: Any) -> None:
    with Client(triton.url) as client:
        client.inspect(IMAGE, timeout=5)
    (request,) = triton.requests
    told = request.timeout_s
    assert 3 < told <= 5  # what of the deadline is left when the request goes out


def test_without_retries_every_failure_is_an_error_at_once(triton: Any) -> None:
    triton.fail(Fault.BROKEN_LINE)
    with Client(triton.url, retry=False) as client, pytest.raises(errors.ServerUnavailableError):
        client.inspect(IMAGE)
    assert triton.counts["ModelInfer"] == 1


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.PERMISSION_DENIED])
def test_a_failure_that_does_not_pass_is_not_tried_again(triton: Any, code: Any) -> None:
    triton.fail(Refusal(code, "no"))
    with Client(triton.url) as client, pytest.raises(errors.DiffusionADError):
        client.inspect(IMAGE)
    assert triton.counts["ModelInfer"] == 1


def test_a_server_that_was_never_reached_is_an_error_at_once(dead_url: str) -> None:
    started = time.monotonic()
    with Client(dead_url) as client, pytest.raises(errors.ServerUnavailableError):
        client.inspect(IMAGE, model="screw")
    assert time.monotonic() - started < 5


def test_a_late_answer_names_the_seconds_and_the_remedy(triton: Any) -> None:
    with Client(triton.url) as client:
        client.inspect(IMAGE)
        triton.slow_s = 0.5
        # What was left of the 0.2 s when the request went out: less on a busy machine.
        named = r"in 0\.(2|1\d*) s; .*timeout= or --timeout"
        with pytest.raises(errors.DeadlineExceededError, match=named):
            client.inspect(IMAGE, timeout=0.2)


def test_a_call_under_way_when_its_client_is_closed_says_so(triton: Any) -> None:
    arrived = Event()

    def linger(call: Any) -> None:
        if call.method == "ModelInfer":
            arrived.set()
            time.sleep(0.5)

    triton.on_call = linger
    client = Client(triton.url)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(client.inspect, IMAGE)
        assert arrived.wait(10)
        client.close()
        with pytest.raises(errors.DiffusionADError, match="this client is closed"):
            found.result(timeout=10)


def test_a_server_on_this_machine_is_reached_past_the_proxy(
    triton: Any, dead_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://{dead_url}")
    with Client(triton.url) as client:
        assert client.health(timeout=5).ready


@pytest.mark.parametrize(
    ("url", "past"),
    [
        ("127.0.0.1:8001", True),
        ("localhost:8001", True),
        ("[::1]:8001", True),
        ("dns:///localhost:8001", True),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("triton.plant:8001", False),
        ("127.0.0.1.plant:8001", False),
    ],
)
def test_only_this_machines_own_addresses_go_past_the_proxy(url: str, past: bool) -> None:
    assert (("grpc.enable_http_proxy", 0) in channel_options(url)) is past


def test_answers_of_more_than_4_megabytes_arrive(triton: Any, make_category: Any) -> None:
    triton.serve(make_category(size=1024))
    with Client(triton.url) as client:
        found = client.inspect(IMAGE)
    assert found.anomaly_map is not None
    assert found.anomaly_map.nbytes + 3 * 1024 * 1024 > 4 * 1024 * 1024


def test_an_answer_that_lacks_an_output_breaks_the_contract(triton: Any) -> None:
    triton.category.alter = lambda outputs: outputs.pop(contract.RECONSTRUCTION)
    with Client(triton.url) as client, pytest.raises(errors.ContractError, match="sent nothing"):
        client.inspect(IMAGE)


def test_an_answer_of_another_shape_breaks_the_contract(triton: Any) -> None:
    other = {contract.ANOMALY_MAP: np.zeros((1, 3, 3), np.float32)}
    triton.category.alter = lambda outputs: outputs.update(other)
    with Client(triton.url) as client, pytest.raises(errors.ContractError, match="ANOMALY_MAP"):
        client.inspect(IMAGE)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8001", "triton.plant:8001", "[::1]:8001", "ipv4:10.0.0.1:1,10.0.0.2:1"]
)
def test_addresses_that_grpc_dials_are_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://localhost:8001", "grpc://a:1", "a:", "a:b", "a:1/v2", "::1"]
)
def test_other_addresses_are_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(errors.AddressError, match="HOST:PORT"):
        check_url(url)


@pytest.mark.parametrize("url", ["plant:99999", "plant:0", "[::1]:65536", "ipv4:10.0.0.1:70000"])
def test_a_port_that_there_is_not_is_refused(url: str) -> None:
    with pytest.raises(errors.AddressError, match="between 1 and 65535"):
        check_url(url)


def test_a_connection_holds_all_that_a_client_needs(triton: Any) -> None:
    triton.admin_key = "k" * 20
    connection = Connection(triton.url, timeout=5, admin_key=triton.admin_key)
    assert triton.admin_key not in repr(connection)
    with Client(connection) as client:
        assert [served.model for served in client.models()] == ["screw"]
        client.inspect(IMAGE)
    assert triton.requests[0].timeout_s <= 5
    with Client(connection, timeout=3) as client:  # what is said beside it goes before it
        client.inspect(IMAGE)
    assert triton.requests[1].timeout_s <= 3


def test_a_port_that_speaks_http_is_told_from_a_server_that_is_gone() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"127.0.0.1:{server.server_port}"
        with Client(url, retry=False) as client, pytest.raises(errors.ServerUnavailableError) as no:
            client.health()
        server.shutdown()
    assert "does not speak gRPC" in str(no.value)
    assert "usually 8001" in str(no.value)
