"""What is seen of a client from outside: its counts, its log, its spans, an interrupt."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from diffusionad_client import Client, InferenceError
from diffusionad_client.testing import FakeCategory, FakeServer, Fault

IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(FakeCategory(size=16)) as server:
        yield server


def test_calls_tries_and_errors_are_counted(server: FakeServer) -> None:
    with Client(server.url) as client:
        client.inspect(IMAGE)
        server.fail(Fault.QUEUE_FULL, times=2)
        client.inspect(IMAGE)
        server.fail(Fault.FAILS, times=1)
        with pytest.raises(InferenceError):
            client.inspect(IMAGE)
        stats = client.stats()
    assert (stats.calls, stats.tries, stats.answers) == (3, 5, 2)
    assert stats.errors == {"InferenceError": 1}
    (of_server,) = stats.servers
    assert of_server.errors == {"ServerBusyError": 2, "InferenceError": 1}
    assert (of_server.url, of_server.up, of_server.under_way) == (server.url, True, 0)
    assert 0 < stats.latencies.p50 <= stats.latencies.p99 <= stats.latencies.longest
    document = stats.to_dict()
    assert document["servers"][0]["latencies"]["count"] == 2
    assert Client(server.url).stats().to_dict()["latencies"]["p50"] is None


def test_a_request_has_an_id_that_the_answer_tells(server: FakeServer) -> None:
    with Client(server.url) as client:
        found = [client.inspect(IMAGE).request_id for _ in range(3)]
    assert [request.request_id for request in server.requests] == found
    assert len(set(found)) == 3


def test_the_log_tells_which_call_failed_where(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeServer(FakeCategory(size=16)) as other, Client([server.url, other.url]) as client:
        client.inspect_batch([IMAGE] * 4)
        with caplog.at_level(logging.DEBUG, "diffusionad_client"):
            server.fail(Fault.STOPPING)
            answered = [client.inspect(IMAGE).request_id for _ in range(2)]
    failed = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert any(request_id in record.message for request_id in answered for record in failed)
    (left,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert left.message.startswith(f"{server.url} is left for now")


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def test_a_call_is_a_span_and_the_server_hears_of_its_try(
    server: FakeServer, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    with (
        Client(server.url, "screw") as client,
        trace.get_tracer("line").start_as_current_span("part"),
    ):
        server.fail(Fault.QUEUE_FULL, times=1)
        found = client.inspect(IMAGE)
    tries = of(spans, "diffusionad.try")
    (call,) = of(spans, "diffusionad.inspect")
    (part,) = of(spans, "part")
    assert call.parent is not None
    assert part.context is not None
    assert call.context is not None
    assert call.parent.span_id == part.context.span_id
    assert [t.parent.span_id for t in tries if t.parent] == [call.context.span_id] * 2
    assert [t.status.is_ok for t in tries] == [False, True]
    attributes = dict(call.attributes or {})
    assert attributes["diffusionad.verdict"] == "OK"
    assert attributes["diffusionad.request_id"] == found.request_id
    sent = [request.headers["traceparent"].split("-")[2] for request in server.requests]
    assert sent == [f"{t.context.span_id:016x}" for t in tries if t.context]


def of(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def test_a_program_without_opentelemetry_does_not_load_it() -> None:
    code = (
        "import sys; import numpy as np\n"
        "from diffusionad_client import Client\n"
        "from diffusionad_client.testing import FakeServer\n"
        "with FakeServer() as server, Client(server.url) as client:\n"
        "    client.inspect(np.zeros((8, 8, 3), np.uint8))\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_interrupt_cancels_the_call_on_the_wire_and_frees_what_it_held() -> None:
    code = (
        "import os, signal, threading, time; import numpy as np\n"
        "from diffusionad_client import Client\n"
        "from diffusionad_client.testing import FakeServer, Fault\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "image = np.zeros((8, 8, 3), np.uint8)\n"
        "with FakeServer() as server, Client(server.url) as client:\n"
        "    client.inspect(image)\n"
        "    server.fail(Fault.HANGS)\n"
        "    def interrupt():\n"
        "        while not server.under_way: time.sleep(0.01)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Thread(target=interrupt).start()\n"
        "    try: client.inspect(image, timeout=30)\n"
        "    except KeyboardInterrupt: pass\n"
        "    end = time.monotonic() + 5\n"
        "    while server.under_way and time.monotonic() < end: time.sleep(0.01)\n"
        "    assert not server.under_way\n"
        "    server.heal()\n"
        "    client.inspect(image)\n"
        "    assert client.stats().servers[0].under_way == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
