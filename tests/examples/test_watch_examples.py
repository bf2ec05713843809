"""What a watch's verdicts are passed on by: to a real broker, and to a real web server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ports import free_port
from waiting import wait_for
from watched import WatchedHere

from diffusionad_client.testing import FakeCategory, FakeServer
from diffusionad_client.watching.verdict_commands import VerdictCommand

EXAMPLES = Path(__file__).parents[2] / "examples"


def command(verdict: str, example: str, argument: str) -> VerdictCommand:
    return VerdictCommand.parse(verdict, f"'{sys.executable}' '{EXAMPLES / example}' {argument}")


@contextmanager
def watching(tmp_path: Path, *commands: VerdictCommand) -> Iterator[WatchedHere]:
    category = FakeCategory(size=16, score=lambda picture: float(picture[..., 0].mean()) / 255)
    with FakeServer(category) as server:
        watch = WatchedHere(tmp_path, server.url, commands=commands)
        yield watch
        watch.stop()


def picture(path: Path, red: int) -> None:
    Image.new("RGB", (40, 30), (red, 0, 0)).save(path)


@contextmanager
def broker(port: int) -> Iterator[list[tuple[str, Any]]]:
    """A broker of amqtt, and what was published on it under diffusionad/."""
    amqtt = pytest.importorskip("amqtt.broker", reason="amqtt is not installed")
    from amqtt.client import MQTTClient
    from amqtt.mqtt.constants import QOS_1

    heard: list[tuple[str, Any]] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        anonymous = "amqtt.plugins.authentication.AnonymousAuthPlugin"
        served = amqtt.Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
                "plugins": {anonymous: {"allow_anonymous": True}},
            }
        )
        await served.start()
        listener = MQTTClient()
        await listener.connect(f"mqtt://127.0.0.1:{port}")
        await listener.subscribe([("diffusionad/#", QOS_1)])
        ready.set()
        while not stop.is_set():
            try:
                message = await listener.deliver_message(timeout_duration=0.2)
            except asyncio.TimeoutError:
                continue
            assert message is not None
            heard.append((message.topic, json.loads(bytes(message.data or b""))))
        await listener.disconnect()
        await served.shutdown()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield heard
    finally:
        stop.set()
        thread.join()


def test_verdicts_are_published_by_mqtt(tmp_path: Path) -> None:
    port = free_port()
    with (
        broker(port) as heard,
        watching(tmp_path, command("ANY", "publish_mqtt.py", f"127.0.0.1:{port}")) as watch,
    ):
        picture(watch.folder / "bad.png", 250)
        picture(watch.folder / "good.png", 10)
        (watch.folder / "text.png").write_text("no image")
        wait_for(lambda: len(heard) == 3, 20)
        records = {topic: record["image"] for topic, record in heard}
    assert records == {
        "diffusionad/screw/NG": "bad.png",
        "diffusionad/screw/OK": "good.png",
        "diffusionad/unknown/FAILED": "text.png",
    }
    assert "Command for" not in watch.said()


def test_a_broker_that_is_not_there_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt", reason="paho-mqtt is not installed")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "publish_mqtt.py", f"127.0.0.1:{free_port()}"],
        input='{"image": "a.png", "model": "screw", "verdict": "NG"}',
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "not published" in done.stderr
    assert "Traceback" not in done.stderr


def test_verdicts_are_posted_to_a_web_service(tmp_path: Path) -> None:
    posted: list[tuple[str, str, Any]] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            posted.append((self.path, self.headers["Idempotency-Key"], record))
            self.send_response(500 if record["verdict"] == "OK" else 204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{service.server_port}/parts"
        with watching(tmp_path, command("ANY", "post_http.py", url)) as watch:
            picture(watch.folder / "bad.png", 250)
            picture(watch.folder / "good.png", 10)
            wait_for(lambda: len(posted) == 2 and "refused with 500" in watch.said(), 20)
        service.shutdown()
    verdicts = {record["image"]: record["verdict"] for _, _, record in posted}
    assert verdicts == {"bad.png": "NG", "good.png": "OK"}
    assert len({key for _, key, _ in posted}) == 2
    assert '"event": "command", "image": "good.png"' in watch.said()
