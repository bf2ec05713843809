"""A fake server in a process of its own: what is measured then is the client."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusionad_client.testing import FakeCategory, FakeServer


@contextmanager
def fake_server(size: int, *, seconds: float = 0.0) -> Iterator[str]:
    """Run one, and give its address: images are `size` pixels wide, and each takes `seconds`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, size, seconds), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join(10)


def _serve(line: Any, size: int, seconds: float) -> None:
    def take_time(call: Any) -> None:
        if call.method == "ModelInfer":
            time.sleep(seconds)

    with FakeServer(FakeCategory(size=size), keep=1, threads=64) as server:
        if seconds:
            server.on_call = take_time
        line.send(server.url)
        line.recv()
