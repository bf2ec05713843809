"""What becomes of a client: closed while it is used, in another event loop, process, or place."""

from __future__ import annotations

import asyncio
import gc
import io
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import grpc
import numpy as np
import pytest
from forks import said_in_a_fork
from PIL import Image
from waiting import wait_for

from diffusionad_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    DiffusionADError,
    ModelNotFoundError,
)
from diffusionad_client.sdk.prepared import Prepared
from diffusionad_client.sdk.servers import Server
from diffusionad_client.testing import FakeCategory, FakeServer, Fault, Refusal

IMAGE = np.zeros((8, 8, 3), np.uint8)
SMALL = {"anomaly_map": False, "reconstruction": False}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(FakeCategory(size=16)) as server:
        yield server


@pytest.fixture
def by_name(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give an address whose host has two addresses, of which one is this server's."""
    port = int(server.url.rpartition(":")[2])

    def look_up(*asked: Any, **options: Any) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (f"127.0.0.{n}", port)) for n in (1, 2)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return "triton.plant:8001"


def test_calls_under_way_in_an_event_loop_end_with_an_error_when_it_is_closed(
    server: FakeServer,
) -> None:
    async def run() -> None:
        client = AsyncClient(server.url)
        await client.inspect(IMAGE, **SMALL)
        server.fail(Fault.HANGS)
        calls = [asyncio.create_task(client.inspect(IMAGE, **SMALL)) for _ in range(3)]
        stream = asyncio.create_task(client.inspect_batch([IMAGE] * 20, **SMALL))
        while server.under_way < 11:  # and a window of the stream's
            await asyncio.sleep(0.01)
        await client.close()
        for came in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(came, DiffusionADError)
        outcomes = await asyncio.wait_for(stream, 10)
        assert {str(outcome.error) for outcome in outcomes} == {
            f"{server.url}: this client is closed; make a new one"
        }
        with pytest.raises(DiffusionADError, match="is closed"):
            await client.with_options(timeout=5).inspect(IMAGE, **SMALL)

    asyncio.run(run())


def test_a_client_that_was_closed_before_its_name_was_looked_up_is_closed(by_name: str) -> None:
    client = Client(by_name)
    client.close()
    with pytest.raises(DiffusionADError, match="is closed"):
        client.inspect(IMAGE, **SMALL)


def test_a_client_of_one_event_loop_says_so_in_another(server: FakeServer) -> None:
    client = AsyncClient(server.url)

    async def inspect() -> None:
        await client.inspect(IMAGE, **SMALL)

    asyncio.run(inspect())
    with pytest.raises(DiffusionADError, match="belongs to the event loop"):
        asyncio.run(inspect())


def test_a_producer_that_ends_by_cancellation_ends_the_stream(server: FakeServer) -> None:
    async def camera() -> AsyncIterator[Any]:
        yield IMAGE
        raise asyncio.CancelledError

    async def run() -> None:
        async with AsyncClient(server.url) as client:
            await asyncio.wait_for(client.inspect_batch(camera(), **SMALL), 10)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


def test_what_goes_to_every_server_is_over_before_its_error_comes(server: FakeServer) -> None:
    async def run() -> None:
        with FakeServer(FakeCategory(size=16)) as other:
            async with AsyncClient([server.url, other.url]) as client:
                refusal = Refusal(grpc.StatusCode.INTERNAL, "no")
                server.fail(refusal, "RepositoryModelLoad")
                other.fail(Fault.HANGS, "RepositoryModelLoad", seconds=0.3)
                with pytest.raises(DiffusionADError, match="cannot load it: no"):
                    await client.load("screw")
                assert len(asyncio.all_tasks()) == 1
                assert other.counts["ModelInfer"] > 0  # it was loaded, and tried

    asyncio.run(run())


def test_a_forked_process_counts_its_own_calls_and_leaves_a_stream(server: FakeServer) -> None:
    with Client(server.url) as client:
        stream = client.inspect_stream([IMAGE] * 40, window=4, **SMALL)
        next(stream)
        wait_for(lambda: client.stats().answers == 4)  # nobody asks until one more is taken

        def go_on() -> str:
            client.inspect(IMAGE, timeout=10, **SMALL)
            stats = client.stats()
            assert (stats.calls, stats.tries, stats.answers) == (1, 1, 1)
            with pytest.raises(DiffusionADError, match="begin another here"):
                list(stream)
            return "went on"

        assert said_in_a_fork(go_on) == "went on"
        assert len(list(stream)) == 39


@pytest.mark.parametrize("call", ["load", "unload"])
def test_a_load_goes_to_every_address_of_a_name(
    call: str, by_name: str, server: FakeServer
) -> None:
    with Client(by_name, timeout=5) as client, pytest.raises(DiffusionADError, match=r"127.0.0.2"):
        getattr(client, call)("screw")
    method = {"load": "RepositoryModelLoad", "unload": "RepositoryModelUnload"}[call]
    assert server.counts[method] == 1


def test_a_look_up_that_hangs_takes_no_longer_than_the_call_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **options: over.wait(3) and [])
    with Client("triton.plant:8001", timeout=0.3) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            client.inspect(IMAGE, **SMALL)
        assert time.monotonic() - started < 1
        over.set()


def test_a_server_with_a_broken_model_is_taken_back_for_its_only_category(
    server: FakeServer,
) -> None:
    """Triton is not ready as a whole then; a call that names no category needs only one."""
    server.ready = False
    with Client(server.url, timeout=10) as client:
        client.inspect(IMAGE, **SMALL)
        server.stop()
        with pytest.raises(DiffusionADError):
            client.inspect(IMAGE, timeout=0.2, **SMALL)
        server.start()
        client.inspect(IMAGE, **SMALL)


def test_only_inspections_count_as_tries(server: FakeServer) -> None:
    with Client(server.url) as client:
        client.models()
        client.inspect(IMAGE, **SMALL)
        assert client.stats().calls == client.stats().tries == 1


def test_a_server_far_away_is_reached(server: FakeServer) -> None:
    """Its first word takes longer than a network nearby ever does."""
    port = int(server.url.rpartition(":")[2])

    def carry(source: socket.socket, sink: socket.socket, delay: float) -> None:
        with closing(sink), suppress(OSError):  # the client hangs up at last
            while data := source.recv(65536):
                time.sleep(delay)
                delay = 0  # the first alone, for the sake of a short test
                sink.sendall(data)

    def serve(listening: socket.socket) -> None:
        near = listening.accept()[0]
        far = socket.create_connection(("127.0.0.1", port))
        for ends in ((near, far, 0.0), (far, near, 0.6)):
            threading.Thread(target=carry, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        with Client(f"127.0.0.1:{listening.getsockname()[1]}", timeout=10) as client:
            client.inspect(IMAGE, **SMALL)


def test_what_is_known_of_a_server_may_grow_while_it_is_looked_through() -> None:
    server = Server("a:8001", None, None)  # type: ignore[arg-type]  # neither is asked
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            grows = pool.submit(lambda: [server.standing(str(n)) for n in range(20_000)])
            while not grows.done():
                server.away()
            grows.result()
    finally:
        sys.setswitchinterval(interval)


def test_servers_whose_only_categories_differ_are_no_fleet(server: FakeServer) -> None:
    """Which product a picture is judged as must not depend on which server is free."""
    with (
        FakeServer(FakeCategory("bolt", size=16)) as other,
        Client([server.url, other.url]) as client,
    ):
        client.inspect(IMAGE, **SMALL)
        for _ in range(3):
            with pytest.raises(ModelNotFoundError, match="serves bolt.*name a category"):
                client.inspect(IMAGE, **SMALL)
        assert client.inspect(IMAGE, model="bolt", **SMALL).model == "bolt"


def test_a_server_that_was_gone_is_sent_files_again(server: FakeServer) -> None:
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "PNG")
    small = {"decode": "auto", **SMALL}
    with Client(server.url, "screw", timeout=10) as client:
        client.inspect(file.getvalue(), **small)
        with server.failing(Fault.STOPPING), pytest.raises(DiffusionADError):
            client.inspect(file.getvalue(), timeout=0.2, **small)
        client.inspect(file.getvalue(), **small)
    assert server.requests[-1].model == server.requests[0].model == "screw__encoded"


def test_a_server_is_not_left_for_what_this_machine_took_the_time(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(server.url) as client:
        client.inspect(IMAGE, **SMALL)
        batch = Prepared.batch
        monkeypatch.setattr(Prepared, "batch", lambda *given: time.sleep(0.2) or batch(*given))
        with pytest.raises(DeadlineExceededError):
            client.inspect(IMAGE, timeout=0.1, **SMALL)
        assert client.stats().servers[0].up


def test_an_interrupt_waits_for_no_server_that_hangs(server: FakeServer) -> None:
    def interrupt() -> None:
        wait_for(lambda: server.counts["ServerReady"] > 0)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    with (
        FakeServer(FakeCategory(size=16)) as other,
        Client([server.url, other.url]) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        server.fail(Fault.HANGS, "*")
        interrupted = pool.submit(interrupt)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.health(timeout=20)
        assert time.monotonic() - started < 5
        interrupted.result()


def test_a_client_that_nobody_holds_looks_at_no_server(server: FakeServer) -> None:
    def upkeep() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "diffusionad upkeep"]

    client = Client(server.url)
    client.inspect(IMAGE, **SMALL)
    server.stop()
    with pytest.raises(DiffusionADError):
        client.inspect(IMAGE, timeout=0.2, **SMALL)
    assert len(upkeep()) == 1
    del client
    gc.collect()
    wait_for(lambda: not upkeep())


def test_a_client_that_nobody_holds_leaves_no_task(server: FakeServer) -> None:
    async def run() -> None:
        client = AsyncClient(server.url)
        await client.inspect(IMAGE, **SMALL)
        server.stop()
        with pytest.raises(DiffusionADError):
            await client.inspect(IMAGE, timeout=0.2, **SMALL)
        assert len(asyncio.all_tasks()) == 2
        del client
        gc.collect()
        await asyncio.sleep(0.5)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
