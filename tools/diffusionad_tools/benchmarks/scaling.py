"""Check the model of docs/scaling.md: measure its parts one by one, and a small run as a whole.

    python -m diffusionad_tools.benchmarks.scaling --images 600

Two limits are tried. Where client and servers share the cores, the images a
second are the cores that the run got by the CPU seconds of an image, which are
added up from its parts. Where the server is what takes time, they are the images
under way by the seconds that one takes. Linux only.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from diffusionad_client import Client, images
from diffusionad_client.testing import FakeCategory
from diffusionad_tools.benchmarks import cpu_time, instant
from diffusionad_tools.benchmarks.apart import fake_server
from diffusionad_tools.benchmarks.circumstances import circumstances
from diffusionad_tools.benchmarks.scoring import make_images, score_command
from diffusionad_tools.server.process import ServerSettings, running_server

_SIZE = 256
_DEPTH = 16
_TURNS = 150  # images for each part
_DISTINCT = 20
_AT_ONCE = 4
_SLOW_S = 0.2  # that the slow server takes for an image
_SLOW_IMAGES = 150


@dataclass(frozen=True)
class Parts:
    """What one image costs, each part measured by itself: CPU milliseconds, and bytes."""

    decode_ms: float  # from the file's bytes to the model's size, by the client
    ask_ms: float  # to ask a server for the score of what is ready, in the client
    read_ms: float  # to read the file from memory, and hash it
    server_ms: float  # for the answer, in the server
    file_bytes: float
    sent_bytes: int

    @property
    def client_ms(self) -> float:
        """What the client takes for an image."""
        return self.decode_ms + self.ask_ms + self.read_ms


@dataclass(frozen=True)
class CheckedLimit:
    """What the model says of a run, and what came of it."""

    limit: str
    predicted: float  # images/s
    measured: float
    cores: float | None = None  # that client and server got, in the mean


@click.command()
@click.option("--images", "count", default=600, show_default=True, help="In the run.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file.  [default: stdout]")
def scaling(count: int, output: Path | None) -> None:
    """Compare what the model says of small runs with what they take."""
    with tempfile.TemporaryDirectory(prefix="diffusionad-scaling-") as temporary:
        folder = Path(temporary)
        repository = instant.write_repository(folder / "models")
        files = make_images(folder / "parts", count, _DISTINCT)
        with running_server(ServerSettings(repository=repository)) as server:
            parts = measure(files, server.grpc_url, server.pid)
            shared = _shared_cores(folder, server.grpc_url, server.pid, count, parts)
        make_images(folder / "few", _SLOW_IMAGES, _DISTINCT)
        slow = _slow_server(folder, parts)
    document = {
        **circumstances(),
        "parts": {name: round(value, 3) for name, value in asdict(parts).items()},
        "checks": [asdict(check) for check in (shared, slow)],
    }
    text = json.dumps(document, indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def measure(files: list[Path], url: str, server: int) -> Parts:
    """Measure the parts of the model, one image after the other."""
    contents = [path.read_bytes() for path in files]
    pixels = [images.fit(images.decode(content), _SIZE, _DEPTH) for content in contents]

    def decode(number: int) -> None:
        images.fit(images.decode(contents[number]), _SIZE, _DEPTH)

    def read(number: int) -> None:
        hashlib.sha256(images.read_file(files[number], timeout=30)).hexdigest()

    with Client(url, instant.CATEGORY) as client:

        def ask(number: int) -> None:
            client.inspect(pixels[number], anomaly_map=False, reconstruction=False)

        ask(0)
        before = cpu_time.of_group(server)
        ask_ms = _cpu_ms(ask, len(files))
        server_ms = 1000 * (cpu_time.of_group(server) - before) / _TURNS
    return Parts(
        decode_ms=_cpu_ms(decode, len(files)),
        ask_ms=ask_ms,
        read_ms=_cpu_ms(read, len(files)),
        server_ms=server_ms,
        file_bytes=sum(map(len, contents)) / len(contents),
        sent_bytes=pixels[0].nbytes,
    )


def _cpu_ms(do: Callable[[int], None], different: int) -> float:
    began = time.process_time()
    for number in range(_TURNS):
        do(number % different)
    return 1000 * (time.process_time() - began) / _TURNS


def _shared_cores(folder: Path, url: str, server: int, count: int, parts: Parts) -> CheckedLimit:
    make_images(folder / "one", 1, 1)
    start = _cpu_of(score_command(folder / "one", folder / "started", "--url", url), server)
    command = score_command(folder / "parts", folder / "shared", "--url", url)
    used = _cpu_of([*command, "--concurrency", str(_AT_ONCE)], server) - start
    seconds = _seconds(folder / "shared")
    cores = used / seconds
    return CheckedLimit(
        limit="client and server share the cores",
        predicted=round(1000 * cores / (parts.client_ms + parts.server_ms), 1),
        measured=round(count / seconds, 1),
        cores=round(cores, 2),
    )


def _cpu_of(command: list[str], server: int) -> float:
    """Run a command; returns the CPU seconds that it and the server took."""
    before = cpu_time.of_group(server) + cpu_time.of_ended_children()
    subprocess.run(command, check=True, capture_output=True)
    return cpu_time.of_group(server) + cpu_time.of_ended_children() - before


def _slow_server(folder: Path, parts: Parts) -> CheckedLimit:
    with fake_server(_SIZE, seconds=_SLOW_S) as url:
        command = score_command(folder / "few", folder / "slow", "--url", url)
        command[command.index("--model") + 1] = FakeCategory().name
        subprocess.run([*command, "--concurrency", str(_AT_ONCE)], check=True, capture_output=True)
    seconds = _seconds(folder / "slow")
    return CheckedLimit(
        limit=f"{_AT_ONCE} images under way, {_SLOW_S} s each",
        predicted=round(_AT_ONCE / (_SLOW_S + parts.client_ms / 1000), 1),
        measured=round(_SLOW_IMAGES / seconds, 1),
    )


def _seconds(results: Path) -> float:
    """Give what a run says that it took, without the start of its process."""
    document: dict[str, Any] = json.loads((results / "run.json").read_text(encoding="utf-8"))
    seconds: float = document["seconds"]
    return seconds


if __name__ == "__main__":
    scaling()
