"""The public server for those who test without Triton."""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from waiting import wait_for

from diffusionad_client import (
    Client,
    Connection,
    ContractError,
    DeadlineExceededError,
    ImageError,
    InferenceError,
    ModelLoadError,
    ModelNotFoundError,
    Priority,
    ServerUnavailableError,
    Thresholds,
    Verdict,
    errors,
)
from diffusionad_client import testing as module
from diffusionad_client.testing import FakeCategory, FakeServer, Fault, Refusal

IMAGE = np.zeros((8, 8, 3), np.uint8)
KEY = "k" * 20


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(FakeCategory(size=16)) as server:
        yield server


def test_one_line_serves_a_category() -> None:
    with FakeServer() as server, Client(server.url) as client:
        found = client.inspect(IMAGE)
    assert (found.model, found.score, found.verdict) == ("screw", 0.0, Verdict.OK)
    assert found.anomaly_map is not None
    assert found.anomaly_map.shape == (256, 256)


def test_the_example_of_the_module_runs() -> None:
    """What its docstring shows, once for all: the test in it, with its picture."""
    code = module.__doc__ or ""
    lines = code.split("\n\n    def test")[1].split("\n\n")[0].splitlines()[1:]
    body = "\n".join(line[4:] for line in lines)
    names = {"picture": IMAGE, "Client": Client, "Verdict": Verdict, "Thresholds": Thresholds}
    exec("if True:\n" + body, {**names, **vars(module)})
    assert "server.promote" in body


@pytest.mark.parametrize("contract", [1, 2])
@pytest.mark.parametrize("encoded", [False, True])
def test_the_score_may_depend_on_the_image_as_it_arrived(contract: int, encoded: bool) -> None:
    def red(image: Any) -> float:
        assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
        return float(image[..., 0].mean() / 255)

    category = FakeCategory(
        size=32, score=red, contract=contract, anomaly_map=lambda image: image[..., 0] / 255
    )
    file = io.BytesIO()
    Image.new("RGB", (50, 40), (204, 0, 0)).save(file, "PNG")
    with FakeServer(category) as server, Client(server.url, "screw") as client:
        found = client.inspect(file.getvalue(), decode="server" if encoded else "client")
    assert found.score == pytest.approx(0.8)
    assert found.verdict is Verdict.NG
    assert found.anomaly_map is not None
    assert found.anomaly_map.max() == pytest.approx(0.8)
    assert found.reconstruction is not None
    assert tuple(found.reconstruction[0, 0]) == (204, 0, 0)  # the image itself
    assert {request.model for request in server.requests} == {
        "screw__encoded" if encoded else "screw"
    }


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (0.29999, Verdict.OK),
        (0.3, Verdict.REVIEW),
        (0.59999, Verdict.REVIEW),
        (0.6, Verdict.NG),
        (float("nan"), Verdict.REVIEW),
    ],
)
def test_a_score_is_judged_as_the_judgement_does(
    server: FakeServer, score: float, verdict: Verdict
) -> None:
    server.category.score = score
    with Client(server.url) as client:
        assert client.inspect(IMAGE).verdict is verdict


def test_requests_are_remembered_with_what_came_along(server: FakeServer) -> None:
    connection = Connection(server.url, headers={"X-Line": "7"})
    with Client(connection, priority=Priority.BATCH) as client:
        found = client.inspect(IMAGE, anomaly_map=False, reconstruction=False, timeout=5)
    (request,) = server.requests
    assert (request.method, request.model) == ("ModelInfer", "screw")
    assert (request.priority, request.request_id) == (2, found.request_id)
    assert 3 < request.timeout_s <= 5
    assert request.outputs == ("SCORE", "VERDICT", "THRESHOLDS", "RELEASE")
    assert request.shape == (1, 16, 16, 3)
    assert request.headers["x-line"] == "7"
    assert 0 <= time.monotonic() - request.at < 60
    assert server.counts["ModelInfer"] == 1


def test_only_so_many_requests_are_remembered() -> None:
    with FakeServer(FakeCategory(size=8), keep=3) as server, Client(server.url) as client:
        found = [client.inspect(IMAGE).request_id for _ in range(5)]
    assert [request.request_id for request in server.requests] == found[-3:]
    assert server.counts["ModelInfer"] == 5


REFUSED: dict[Fault, type[Exception]] = {
    Fault.QUEUE_FULL: errors.ServerBusyError,
    Fault.WAITED_TOO_LONG: errors.ServerBusyError,
    Fault.RESTRICTED: errors.AccessDeniedError,
    Fault.NOT_READY: ServerUnavailableError,
    Fault.STOPPING: ServerUnavailableError,
    Fault.NO_VERSION: ModelNotFoundError,
    Fault.NOT_FOUND: ModelNotFoundError,
    Fault.PROCESS_DEAD: ServerUnavailableError,
    Fault.FAILS: InferenceError,
    Fault.BROKEN_LINE: ServerUnavailableError,
    Fault.HANGS: DeadlineExceededError,
    Fault.LACKS_OUTPUTS: ContractError,
    Fault.WRONG_SHAPE: ContractError,
    Fault.OTHER_RELEASE: ContractError,
    Fault.BAD_THRESHOLDS: ContractError,
}


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_is_the_clients_error_for_it(server: FakeServer, fault: Fault) -> None:
    with Client(server.url, retry=False) as client:
        client.inspect(IMAGE)
        with server.failing(fault), pytest.raises(errors.DiffusionADError) as caught:
            client.inspect(IMAGE, timeout=0.4 if fault is Fault.HANGS else 10)
        assert type(caught.value) is REFUSED[fault]
        client.inspect(IMAGE)


def test_a_fault_may_be_for_some_calls_some_seconds_or_one_model() -> None:
    with (
        FakeServer(FakeCategory("screw", size=8), FakeCategory("nut", size=8)) as server,
        Client(server.url, "screw", retry=False) as client,
    ):
        client.inspect(IMAGE)
        server.fail(Fault.FAILS, times=2)
        for _ in range(2):
            with pytest.raises(InferenceError):
                client.inspect(IMAGE)
        client.inspect(IMAGE)

        server.fail(Fault.FAILS, model="nut")
        client.inspect(IMAGE)
        with pytest.raises(InferenceError):
            client.inspect(IMAGE, model="nut")
        server.heal()

        server.fail(Fault.FAILS, seconds=0.3)
        with pytest.raises(InferenceError):
            client.inspect(IMAGE)
        time.sleep(0.3)
        client.inspect(IMAGE)


def test_one_call_hangs_until_it_is_healed_and_the_next_does_not(server: FakeServer) -> None:
    with Client(server.url) as client, ThreadPoolExecutor(1) as pool:
        client.inspect(IMAGE)
        server.fail(Fault.HANGS, times=1)
        hanging = pool.submit(client.inspect, IMAGE)
        wait_for(lambda: server.under_way == 1)
        client.inspect(IMAGE)
        assert not hanging.done()
        server.heal()
        assert hanging.result(timeout=10).score == 0


def test_a_call_that_hangs_or_is_slow_is_given_up_when_nobody_waits(server: FakeServer) -> None:
    with Client(server.url, retry=False) as client:
        client.inspect(IMAGE)
        server.fail(Fault.HANGS, times=1)
        for _ in range(2):
            with pytest.raises(DeadlineExceededError):
                client.inspect(IMAGE, timeout=0.3)
            wait_for(lambda: server.under_way == 0)
            server.slow_s = 60  # the next


def test_a_server_that_hangs_altogether_answers_no_method(server: FakeServer) -> None:
    server.fail(Fault.HANGS, "*")
    with Client(server.url) as client, pytest.raises(DeadlineExceededError):
        client.health(timeout=0.3)


def test_a_refusal_has_any_status_and_words(server: FakeServer) -> None:
    server.fail(Refusal(grpc.StatusCode.PERMISSION_DENIED, "not on Sundays"), "RepositoryIndex")
    with Client(server.url) as client, pytest.raises(errors.AccessDeniedError, match="Sundays"):
        client.models()


def test_a_method_that_there_is_not_is_refused(server: FakeServer) -> None:
    with pytest.raises(errors.ArgumentError, match="'Infer'; it has"):
        server.fail(Fault.FAILS, "Infer")
    with pytest.raises(errors.ArgumentError, match="no 'tresholds'"):
        server.promote(tresholds=None)
    with pytest.raises(errors.ArgumentError, match="version"):
        server.promote(version="two")
    assert server.category.version == "1"


@pytest.mark.parametrize(
    "make",
    [
        lambda: FakeServer(threads=0),
        lambda: FakeServer(keep=-1),
        lambda: FakeServer(client_ca=b"pem"),
        lambda: FakeServer(certificate=(b"no", b"pem")).start(),
        lambda: FakeCategory("two__words"),
        lambda: FakeCategory(size=0),
        lambda: FakeCategory(version="0"),
        lambda: FakeCategory(contract=99),
    ],
)
def test_what_no_server_can_be_is_refused_at_once(make: Callable[[], Any]) -> None:
    with pytest.raises(errors.DiffusionADError):
        make()


def test_a_port_that_was_taken_meanwhile_is_named(server: FakeServer) -> None:
    server.stop()
    host, _, port = server.url.rpartition(":")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, int(port)))
        other.listen()
        with pytest.raises(errors.ServeError, match=f"cannot listen on {server.url}"):
            server.start()
    server.start()
    with Client(server.url) as client:
        client.inspect(IMAGE)


def test_a_stopped_server_is_gone_and_comes_back_at_the_same_address(server: FakeServer) -> None:
    url = server.url
    with Client(url, retry=False) as client:
        client.inspect(IMAGE)
        server.fail(Fault.HANGS, times=1)
        with ThreadPoolExecutor(1) as pool:
            cut = pool.submit(client.inspect, IMAGE)
            wait_for(lambda: server.under_way == 1)
            server.stop()
            assert isinstance(cut.exception(10), ServerUnavailableError)
        with pytest.raises(ServerUnavailableError):
            client.inspect(IMAGE, timeout=2)
        server.start()
        assert server.url == url
        with Client(url) as again:
            again.inspect(IMAGE)


def test_a_promotion_is_another_release_at_once(server: FakeServer) -> None:
    server.category.score = 0.5
    with Client(server.url) as client:
        before = client.inspect(IMAGE)
        server.promote(thresholds=Thresholds(0.1, 0.2))
        after = client.inspect(IMAGE)
        server.promote(size=24, release="c" * 12)
        last = client.inspect(IMAGE)
    assert [found.version for found in (before, after, last)] == ["1", "2", "3"]
    assert (before.verdict, after.verdict) == (Verdict.REVIEW, Verdict.NG)
    assert len({found.release for found in (before, after, last)}) == 3
    assert last.release == "c" * 12
    assert last.anomaly_map is not None
    assert last.anomaly_map.shape == (24, 24)


def test_a_repository_is_closed_to_those_without_the_key_and_loads_and_unloads() -> None:
    idle = FakeCategory("nut", size=8, loaded=False)
    broken = FakeCategory("bolt", size=8, broken="Internal: out of memory")
    screw = FakeCategory("screw", size=8)
    with FakeServer(screw, idle, broken, admin_key=KEY) as server:
        with Client(server.url) as client, pytest.raises(errors.AccessDeniedError):
            client.models()
        with Client(Connection(server.url, admin_key=KEY), retry=False) as client:
            catalogue = client.catalogue()
            assert catalogue.names == ["screw"]
            assert catalogue.encoded == ["screw"]
            told = {each.model: (each.state, each.reason) for each in catalogue.idle}
            assert told["nut"] == ("NOT_LOADED", "")
            assert told["bolt"][0] == "UNAVAILABLE"
            assert "bolt__segmentation: Internal: out of memory" in told["bolt"][1]
            with pytest.raises(ModelNotFoundError, match="in its repository"):
                client.inspect(IMAGE, model="nut")
            assert client.load("nut").version == "1"
            client.inspect(IMAGE, model="nut")
            client.unload("nut")
            with pytest.raises(ModelNotFoundError):
                client.inspect(IMAGE, model="nut")
            with pytest.raises(ModelLoadError, match="out of memory"):
                client.load("bolt")
            with pytest.raises(ModelNotFoundError, match="no such model"):
                client.load("rivet")


def test_a_file_that_is_no_image_is_refused_as_the_decoder_does(server: FakeServer) -> None:
    with Client(server.url) as client, pytest.raises(ImageError, match="unusable image 0 of the"):
        client.inspect(b"nonsense", decode="server")


def test_what_is_sent_can_be_altered(server: FakeServer) -> None:
    def other_map(outputs: dict[str, Any]) -> None:
        outputs["ANOMALY_MAP"] = np.zeros((1, 3, 3), np.float32)

    server.category.alter = other_map
    with Client(server.url) as client, pytest.raises(ContractError, match="ANOMALY_MAP"):
        client.inspect(IMAGE)
    server.category.alter = None
    server.category.alter_config = lambda config: config.ClearField("parameters")
    with Client(server.url, "screw") as client, pytest.raises(ContractError, match="parameter"):
        client.inspect(IMAGE)


def test_a_function_of_the_tests_that_fails_says_so(server: FakeServer) -> None:
    def score(image: Any) -> float:
        raise KeyError("weights")

    server.category.score = score
    with Client(server.url) as client, pytest.raises(InferenceError, match="KeyError: 'weights'"):
        client.inspect(IMAGE)


def test_each_call_is_told_before_it_meets_its_fault(server: FakeServer) -> None:
    told: list[str] = []

    def fail_from_the_third_image(call: Any) -> None:
        told.append(call.method)
        if told.count("ModelInfer") == 3:
            server.fail(Fault.FAILS)

    server.on_call = fail_from_the_third_image
    with Client(server.url) as client:
        for _ in range(2):
            client.inspect(IMAGE)
        with pytest.raises(InferenceError):
            client.inspect(IMAGE)
    assert "ModelConfig" in told


@pytest.mark.parametrize("mutual", [False, True])
def test_it_speaks_tls(make_certificates: Any, tmp_path: Any, mutual: bool) -> None:
    files = make_certificates(tmp_path)
    issued = files.issue("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    ca = files.ca.read_bytes() if mutual else None
    with FakeServer(certificate=(chain, issued.private_key_pem.bytes()), client_ca=ca) as server:
        port = int(server.url.rpartition(":")[2])
        own = {"client_cert": files.client_cert, "client_key": files.client_key} if mutual else {}
        with Client(files.reach(port, **own)) as client:
            assert client.inspect(IMAGE).score == 0
        strange = files.reach(port, ca_cert=files.strange_ca)
        with Client(strange) as client, pytest.raises(errors.TLSError):
            client.health(timeout=5)
        if mutual:
            with Client(files.reach(port), retry=False) as client, pytest.raises(errors.TLSError):
                client.health(timeout=5)


def test_nothing_is_left_of_a_server_that_is_closed() -> None:
    def held() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    def round_trip() -> None:
        with FakeServer() as server, Client(server.url) as client:
            # Not for one call: a slow machine's may end before the server has it.
            with server.failing(Fault.HANGS), pytest.raises(DeadlineExceededError):
                client.inspect(IMAGE, timeout=0.2)
            client.inspect(IMAGE)

    round_trip()  # what gRPC makes once, and keeps
    before = held()
    for _ in range(3):
        round_trip()
    wait_for(lambda: held()[0] <= before[0] and held()[1] <= before[1])
