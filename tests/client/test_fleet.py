"""Several servers behind one client: which is asked, which is left, and when it is taken back."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import trustme
from click.testing import CliRunner
from forks import said_in_a_fork
from waiting import wait_for

from diffusionad_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    DiffusionADError,
    ModelNotFoundError,
    ServerBusyError,
    ServerUnavailableError,
    Thresholds,
    TLSError,
    Verdict,
)
from diffusionad_client.cli import main
from diffusionad_client.sdk import servers as servers_module
from diffusionad_client.testing import FakeCategory, FakeServer, Fault

IMAGE = np.zeros((8, 8, 3), np.uint8)
SMALL = {"anomaly_map": False, "reconstruction": False}


def part(name: str = "screw", **changes: Any) -> FakeCategory:
    return FakeCategory(name, size=16, **changes)


@pytest.fixture
def fleet() -> Iterator[list[FakeServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeServer(part())) for _ in range(3)]


def urls(fleet: list[FakeServer]) -> list[str]:
    return [server.url for server in fleet]


def answered(fleet: list[FakeServer]) -> list[int]:
    return [server.counts["ModelInfer"] for server in fleet]


def test_calls_are_spread_over_the_servers(fleet: list[FakeServer]) -> None:
    """While they are equally fast: here they take a time that a busy machine hardly changes."""
    with Client(urls(fleet)) as client, ThreadPoolExecutor(6) as pool:
        for _ in range(30):
            client.inspect(IMAGE, **SMALL)
        assert answered(fleet) == [10, 10, 10]
        for server in fleet:
            server.slow_s = 0.03
        list(pool.map(lambda _: client.inspect(IMAGE, **SMALL), range(300)))
    shares = answered(fleet)
    assert sum(shares) == 330
    assert max(shares) <= 1.2 * min(shares)


def test_callers_that_choose_at_the_same_moment_get_different_servers(
    fleet: list[FakeServer],
) -> None:
    with Client(urls(fleet)) as client:
        client.inspect_batch([IMAGE] * 6, **SMALL)
        servers = client._session.servers
        chosen = [servers.choose("screw", ()) for _ in range(6)]
    assert len({id(server) for server in chosen[:3]}) == 3
    assert chosen[:3] == chosen[3:]


def test_a_slow_server_gets_fewer_calls(fleet: list[FakeServer]) -> None:
    fleet[0].slow_s = 0.3
    with Client(urls(fleet)) as client:
        stream = client.inspect_stream([IMAGE] * 90, window=6, ordered=False, **SMALL)
        assert all(outcome.error is None for outcome in stream)
    slow, *fast = answered(fleet)
    assert slow < min(fast) / 2


def test_an_answer_names_the_server_that_gave_it(fleet: list[FakeServer]) -> None:
    with Client(urls(fleet)) as client:
        assert {client.inspect(IMAGE, **SMALL).server for _ in range(3)} == set(urls(fleet))


def test_a_dead_server_is_left_at_once_and_taken_back_within_two_seconds(
    fleet: list[FakeServer],
) -> None:
    with Client(urls(fleet), timeout=10) as client:
        client.inspect_batch([IMAGE] * 9, **SMALL)
        fleet[0].stop()
        started = time.monotonic()
        for _ in range(20):
            assert client.inspect(IMAGE, **SMALL).server != fleet[0].url
        assert time.monotonic() - started < 2
        assert client.stats().tries <= client.stats().calls + 1
        (gone,) = [s for s in client.stats().servers if not s.up]
        assert gone.url == fleet[0].url

        fleet[0].start()
        back = time.monotonic()
        wait_for(lambda: client.inspect(IMAGE, **SMALL).server == fleet[0].url)
        assert time.monotonic() - back < 2


def test_calls_under_way_on_a_server_that_dies_are_answered_by_another(
    fleet: list[FakeServer],
) -> None:
    with Client(urls(fleet), timeout=10) as client, ThreadPoolExecutor(6) as pool:
        client.inspect_batch([IMAGE] * 6, **SMALL)
        fleet[0].fail(Fault.HANGS)
        found = [pool.submit(client.inspect, IMAGE, **SMALL) for _ in range(6)]
        wait_for(lambda: answered(fleet)[0] > 2)
        fleet[0].stop()
        assert {each.result(timeout=10).server for each in found} <= set(urls(fleet[1:]))


def test_a_server_that_hangs_is_left_after_a_share_of_the_deadline(
    fleet: list[FakeServer],
) -> None:
    with Client(urls(fleet)) as client:
        client.inspect_batch([IMAGE] * 6, **SMALL)
        # A server that is stopped (SIGSTOP) answers nothing at all.
        fleet[0].fail(Fault.HANGS, "ModelInfer", "ModelReady", "ModelConfig", "ModelMetadata")
        started = time.monotonic()
        for _ in range(6):
            found = client.inspect(IMAGE, timeout=2, **SMALL)
            assert found.server != fleet[0].url
        assert time.monotonic() - started < 2  # one of them lost its share, the others nothing
        fleet[0].heal()
        wait_for(lambda: client.inspect(IMAGE, **SMALL).server == fleet[0].url, 4)


def test_no_call_is_answered_later_than_its_deadline(fleet: list[FakeServer]) -> None:
    with Client(urls(fleet)) as client:
        client.inspect_batch([IMAGE] * 6, **SMALL)
        for server in fleet:
            server.fail(Fault.HANGS, "ModelInfer", "ModelReady", "ModelConfig", "ModelMetadata")
        started = time.monotonic()
        with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
            client.inspect(IMAGE, timeout=0.5)
        assert time.monotonic() - started < 0.5 + 0.5  # 50 ms, and a busy machine's pauses
        for server in fleet:
            server.heal()


@pytest.mark.parametrize(
    "fault", [Fault.STOPPING, Fault.NOT_READY, Fault.NO_VERSION, Fault.PROCESS_DEAD]
)
def test_what_one_server_cannot_do_now_another_does(fleet: list[FakeServer], fault: Fault) -> None:
    with Client(urls(fleet)) as client:
        client.inspect_batch([IMAGE] * 6, **SMALL)
        fleet[1].fail(fault, "ModelInfer")
        started = time.monotonic()
        for _ in range(9):
            assert client.inspect(IMAGE, **SMALL).server != fleet[1].url
        assert time.monotonic() - started < 2


def test_a_full_queue_is_no_reason_to_leave_a_server(fleet: list[FakeServer]) -> None:
    with Client(urls(fleet)) as client:
        client.inspect_batch([IMAGE] * 6, **SMALL)
        fleet[0].fail(Fault.QUEUE_FULL, times=2)
        for _ in range(9):
            client.inspect(IMAGE, **SMALL)
        assert all(server.up for server in client.stats().servers)
        assert client.stats().servers[0].errors == {"ServerBusyError": 2}


def test_a_category_that_one_server_lacks_is_asked_of_another(fleet: list[FakeServer]) -> None:
    del fleet[0].categories["screw"]
    with Client(urls(fleet), "screw") as client:
        assert {client.inspect(IMAGE, **SMALL).server for _ in range(6)} == set(urls(fleet[1:]))
        with pytest.raises(ModelNotFoundError, match="'nut'"):
            client.inspect(IMAGE, model="nut")


def test_a_trouble_with_one_category_leaves_the_others_alone() -> None:
    with (
        FakeServer(part("screw"), part("bolt")) as first,
        FakeServer(part("screw"), part("bolt")) as second,
        Client([first.url, second.url]) as client,
    ):
        for model in ("screw", "bolt") * 2:
            client.inspect(IMAGE, model=model, **SMALL)
        first.fail(Fault.PROCESS_DEAD, model="screw")
        screws = {client.inspect(IMAGE, model="screw", **SMALL).server for _ in range(6)}
        bolts = {client.inspect(IMAGE, model="bolt", **SMALL).server for _ in range(6)}
    assert screws == {second.url}
    assert bolts == {first.url, second.url}


def test_a_half_promoted_fleet_is_judged_by_what_each_answer_says() -> None:
    old = part(thresholds=Thresholds(0.6, 0.7), score=0.5)
    new = part(thresholds=Thresholds(0.1, 0.2), score=0.5, release="b" * 64, version="2")
    with (
        FakeServer(old) as first,
        FakeServer(new) as second,
        Client([first.url, second.url]) as client,
    ):
        found = [client.inspect(IMAGE, **SMALL) for _ in range(6)]
        health = client.health()
    verdicts = {(each.release[0], each.verdict) for each in found}
    assert verdicts == {("a", Verdict.OK), ("b", Verdict.NG)}
    (difference,) = health.differences
    assert first.url in difference
    assert "bbbbbbbbbbbb" in difference
    assert "release promote screw" in difference


def test_health_tells_of_every_server(fleet: list[FakeServer]) -> None:
    fleet[2].stop()
    with Client(urls(fleet)) as client:
        health = client.health(timeout=5)
    assert not health.ready
    assert [server.ready for server in health.servers] == [True, True, False]
    assert isinstance(health.servers[2].error, ServerUnavailableError)
    assert health.differences == []


def test_a_deep_look_names_the_server_of_each_answer(fleet: list[FakeServer]) -> None:
    fleet[1].fail(Fault.PROCESS_DEAD)
    url = ",".join(urls(fleet))
    shown = CliRunner().invoke(main, ["health", "--deep", "--url", url, "--model", "screw"])
    assert shown.exit_code == 1
    assert f"screw on {fleet[0].url}: answers" in shown.output
    assert f"screw on {fleet[1].url}: does not answer" in shown.output


def test_a_fleet_to_which_nobody_finds_a_secure_way_is_not_merely_away() -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    pair = (issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes())
    with (
        FakeServer(part(), certificate=pair) as first,
        FakeServer(part(), certificate=pair) as second,
        Client([first.url, second.url]) as client,
        pytest.raises(TLSError, match="speaks TLS") as caught,
    ):
        client.health(timeout=10)
    assert first.url in str(caught.value)
    assert second.url in str(caught.value)


def test_a_fleet_of_which_none_answers_is_one_error_that_names_them_all(
    fleet: list[FakeServer],
) -> None:
    for server in fleet:
        server.stop()
    with Client(urls(fleet), "screw") as client:
        for ask in (client.health, lambda: client.inspect(IMAGE)):
            with pytest.raises(ServerUnavailableError):
                ask()


def test_in_a_total_outage_clients_do_not_multiply_the_load(fleet: list[FakeServer]) -> None:
    over, errors = Event(), set()

    def station(client: Client) -> None:
        while not over.is_set():
            try:
                client.inspect(IMAGE, timeout=0.4, **SMALL)
            except DiffusionADError as exc:
                errors.add(type(exc))

    with Client(urls(fleet)) as client, ThreadPoolExecutor(20) as pool:
        client.inspect_batch([IMAGE] * 9, **SMALL)
        for server in fleet:
            server.fail(Fault.STOPPING, "ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig")
        before = client.stats()
        stations = [pool.submit(station, client) for _ in range(20)]
        time.sleep(3)
        after = client.stats()
        for server in fleet:
            server.heal()
        healed = time.monotonic()
        wait_for(lambda: client.stats().answers > after.answers + 20)
        assert time.monotonic() - healed < 2
        over.set()
        for each in stations:
            each.result(timeout=10)
    calls, tries = after.calls - before.calls, after.tries - before.tries
    assert calls > 80
    assert tries <= 1.1 * calls
    assert errors <= {ServerUnavailableError, DeadlineExceededError}


def test_a_queue_that_stays_full_is_asked_within_the_budget() -> None:
    with FakeServer(part()) as server, Client(server.url) as client, ThreadPoolExecutor(8) as pool:
        client.inspect(IMAGE, **SMALL)
        server.fail(Fault.QUEUE_FULL)
        before = client.stats().tries

        def ask(_: int) -> type[Exception] | None:
            try:
                client.inspect(IMAGE, timeout=1, **SMALL)
            except ServerBusyError as exc:
                return type(exc)
            return None

        kinds = set(pool.map(ask, range(24)))
        tries = client.stats().tries - before
    assert kinds == {ServerBusyError}
    assert tries <= 24 * 1.1 + 10 + 10  # what is in the bucket at first, and a second's drop


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[FakeServer]:
    """The servers that triton.plant:8001 is a name of: whatever is put in."""
    servers: list[FakeServer] = []

    def look_up(host: str, port: int, **options: Any) -> list[Any]:
        assert (host, port) == ("triton.plant", 8001)
        ports = [int(url.rpartition(":")[2]) for url in urls(servers)]
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", p)) for p in ports]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return servers


def test_a_name_stands_for_all_of_its_addresses(
    fleet: list[FakeServer], named: list[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A headless service: its name has an address for each server, and they change."""
    named += fleet[:2]
    monkeypatch.setattr(servers_module, "RESOLVE_EVERY_S", 0.2)
    with Client("triton.plant:8001") as client:
        assert {client.inspect(IMAGE, **SMALL).server for _ in range(4)} == set(urls(fleet[:2]))
        named.append(fleet[2])
        wait_for(lambda: client.inspect(IMAGE, **SMALL).server == fleet[2].url)
        del named[0]
        wait_for(lambda: client.inspect(IMAGE, **SMALL) and len(client.stats().servers) == 2)
        assert fleet[0].url not in {client.inspect(IMAGE, **SMALL).server for _ in range(6)}


@pytest.mark.long
def test_an_address_that_a_name_has_got_takes_load_within_ten_seconds(
    fleet: list[FakeServer], named: list[FakeServer]
) -> None:
    """With the client's own times; the test above has shorter ones."""
    named += fleet[:2]
    with Client("triton.plant:8001") as client:
        assert {client.inspect(IMAGE, **SMALL).server for _ in range(4)} == set(urls(fleet[:2]))
        named.append(fleet[2])
        wait_for(lambda: client.inspect(IMAGE, **SMALL).server == fleet[2].url, 10)


def test_a_resolver_that_hangs_keeps_no_server_from_being_taken_back(
    fleet: list[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [int(server.url.rpartition(":")[2]) for server in fleet]
    answers = [(socket.AF_INET, 1, 6, "", ("127.0.0.1", port)) for port in ports]
    hangs, over = Event(), Event()

    def look_up(host: str, port: int, **options: Any) -> list[Any]:
        if hangs.is_set():
            over.wait(30)
        return answers

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with Client("triton.plant:8001") as client:
        client.inspect(IMAGE, **SMALL)
        hangs.set()
        fleet[0].stop()
        wait_for(lambda: client.inspect(IMAGE, **SMALL) and len(_up(client)) == 2)
        fleet[0].start()
        back = time.monotonic()
        wait_for(lambda: client.inspect(IMAGE, **SMALL) and len(_up(client)) == 3)
        assert time.monotonic() - back < 2
        over.set()


def _up(client: Client) -> list[str]:
    return [server.url for server in client.stats().servers if server.up]


def test_a_client_goes_on_in_a_process_that_is_forked(fleet: list[FakeServer]) -> None:
    with Client(urls(fleet)) as client:
        client.inspect_batch([IMAGE] * 6, **SMALL)
        assert said_in_a_fork(lambda: client.inspect(IMAGE, timeout=10, **SMALL).verdict) == "OK"
        client.inspect(IMAGE, **SMALL)


def test_a_process_that_is_forked_during_a_call_is_told_so(fleet: list[FakeServer]) -> None:
    """GRPC would abort it, now and then: the thread that calls may have a lock of its."""
    for server in fleet:
        server.slow_s = 1.0
    with Client(urls(fleet)) as client:

        def ask() -> str:
            for do in (client.inspect, client.inspect, Client(urls(fleet)).inspect):
                with pytest.raises(DiffusionADError, match="fork between calls, or begin"):
                    do(IMAGE, **SMALL)
            with pytest.raises(DiffusionADError, match="fork between calls, or begin"):
                client.close()
            return "told"

        busy = Thread(target=lambda: client.inspect(IMAGE, **SMALL))
        busy.start()
        wait_for(lambda: sum(answered(fleet)) == 1)
        assert said_in_a_fork(ask) == "told"
        busy.join()
        assert client.inspect(IMAGE, **SMALL).verdict == "OK"


def test_an_event_loop_fails_over_as_threads_do(fleet: list[FakeServer]) -> None:
    async def run() -> None:
        async with AsyncClient(urls(fleet), timeout=10) as client:
            await client.inspect_batch([IMAGE] * 9, **SMALL)
            fleet[0].stop()
            outcomes = await client.inspect_batch([IMAGE] * 20, **SMALL)
            assert {outcome.result().server for outcome in outcomes} == set(urls(fleet[1:]))
            fleet[0].start()
            back = time.monotonic()
            while (await client.inspect(IMAGE, **SMALL)).server != fleet[0].url:
                assert time.monotonic() - back < 2
            assert (await client.health()).ready
            assert client.stats().answers >= 30

    asyncio.run(run())
