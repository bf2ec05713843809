"""Measure what `diffusionad score` costs beside decoding, and whether that stays so.

    python -m diffusionad_tools.benchmarks.scoring --images 20000

Serves a category whose graphs answer at once, and scores a folder of JPEGs of
1024 x 1024 pixels without heat maps: decoded by the client, then by the server.
Of a few different pictures all others are hard links. A bare loop that reads,
decodes and resizes the same files is the limit that the client is held
against. Client and server share this machine, so CPU seconds are counted:
of what the server leaves, the client makes that share of the bare loop's images.
Linux only.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from PIL import Image

from diffusionad_tools.benchmarks import cpu_time, instant
from diffusionad_tools.benchmarks.circumstances import circumstances
from diffusionad_tools.demo_data.part import sample_part
from diffusionad_tools.demo_data.rendering import render
from diffusionad_tools.server.process import ServerSettings, running_server

_SIDE, _QUALITY = 1024, 90
_SIZE = 256  # of the model
_BARE_IMAGES = 20  # in one turn of the bare loop
_BARE_EVERY_S = 2.0
_STEP = 1000  # images between two marks
_LOOK_EVERY_S = 0.02
_FOLDER = 1000  # files in each


@dataclass(frozen=True)
class Milestone:
    """How far a run was at one moment."""

    images: int
    seconds: float  # since it began
    cpu_s: float  # of the client


@dataclass(frozen=True)
class CpuCost:
    """What one run of the command took."""

    decode: str
    images: int
    seconds: float
    client_cpu_ms: float  # an image, all of the command included
    server_cpu_ms: float
    bare_cpu_ms: float  # an image, of the bare loop at the same time
    peak_mb: float  # of the client's memory
    first_cpu_ms: float  # an image, of the first thousand; without the command's start
    last_cpu_ms: float  # of the last thousand


@click.command()
@click.option("--images", default=3000, show_default=True, help="How many are scored.")
@click.option("--distinct", default=50, show_default=True, help="How many of them differ.")
@click.option("--concurrency", default="4", show_default=True, help="As of `diffusionad score`.")
@click.option("--decode", "decodes", multiple=True, default=("client", "server"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file.  [default: stdout]")
def scoring(
    images: int, distinct: int, concurrency: str, decodes: tuple[str, ...], output: Path | None
) -> None:
    """Score many generated JPEGs, and compare with a bare loop."""
    with tempfile.TemporaryDirectory(prefix="diffusionad-scoring-") as temporary:
        folder = Path(temporary)
        repository = instant.write_repository(folder / "models")
        files = make_images(folder / "parts", images, distinct)
        costs = []
        with running_server(ServerSettings(repository=repository)) as server:
            for decode in decodes:
                options = ["--url", server.grpc_url, "--decode", decode]
                options += ["--concurrency", concurrency]
                command = score_command(folder / "parts", folder / decode, *options)
                costs.append(_run(command, folder / decode, images, decode, server.pid, files))
                click.echo(f"{costs[-1]}", err=True)
    by_decode = {cost.decode: cost for cost in costs}
    document = {
        **circumstances(),
        "runs": [asdict(cost) for cost in costs],
    }
    if "client" in by_decode:
        mine = by_decode["client"]
        document["share_of_bare_loop"] = round(mine.bare_cpu_ms / mine.client_cpu_ms, 3)
        document["last_to_first"] = round(mine.last_cpu_ms / mine.first_cpu_ms, 3)
        if "server" in by_decode:
            theirs = by_decode["server"].client_cpu_ms
            document["client_cpu_saved_by_server"] = round(mine.client_cpu_ms / theirs, 2)
    text = json.dumps(document, indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def make_images(folder: Path, images: int, distinct: int) -> list[Path]:
    """Write `distinct` JPEGs of demo parts, and links to them; returns the first of each."""
    originals = []
    for number in range(min(distinct, images)):
        path = folder / "0" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = render(sample_part(np.random.default_rng(number), _SIDE))
        Image.fromarray(part).save(path, quality=_QUALITY)
        originals.append(path)
    for number in range(len(originals), images):
        path = folder / str(number // _FOLDER) / f"{number:07}.jpg"
        path.parent.mkdir(exist_ok=True)
        os.link(originals[number % len(originals)], path)
    return originals


class BareLoop:
    """Reads, decodes and resizes images one by one with Pillow, now and then during a run.

    At the same time as what it is compared with, both have what other programs
    leave of caches and clock.
    """

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._took: list[float] = []  # CPU seconds of each turn

    def turn(self) -> None:
        """Do a few images."""
        began = time.process_time()
        for number in range(_BARE_IMAGES):
            with Image.open(self._files[number % len(self._files)]) as image:
                np.asarray(image.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR))
        self._took.append(time.process_time() - began)

    def cpu_ms(self) -> float:
        """Give the CPU milliseconds of an image, in the mean."""
        return 1000 * statistics.mean(self._took) / _BARE_IMAGES


def score_command(parts: Path, results: Path, *options: str) -> list[str]:
    """Give the command that scores a folder without pictures, tables or report."""
    program = [sys.executable, "-m", "diffusionad_client", "score", str(parts)]
    program += ["--output", str(results), "--model", instant.CATEGORY]
    return [*program, "--heatmaps", "none", "--no-report", "--format", "jsonl", *options]


def _run(
    command: list[str], results: Path, images: int, decode: str, server: int, files: list[Path]
) -> CpuCost:
    server_cpu, before = cpu_time.of_group(server), cpu_time.of_ended_children()
    began = time.perf_counter()
    marks: list[Milestone] = []
    bare = BareLoop(files)
    turns = 0
    lines = _Lines(results / "results.jsonl.part")
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            done = lines.count()
            if done and (not marks or done >= marks[-1].images + _STEP):
                now = time.perf_counter() - began
                marks.append(Milestone(done, now, cpu_time.of_process(process.pid)))
            if time.perf_counter() - began > turns * _BARE_EVERY_S:
                bare.turn()
                turns += 1
            peak = max(peak, _peak_mb(process.pid))
            time.sleep(_LOOK_EVERY_S)
        error = process.stderr.read().decode() if process.stderr else ""
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with {process.returncode}: {error}")
    seconds = time.perf_counter() - began
    used = cpu_time.of_ended_children() - before
    paces = [1000 * (b.cpu_s - a.cpu_s) / (b.images - a.images) for a, b in pairwise(marks)]
    return CpuCost(
        decode=decode,
        images=images,
        seconds=round(seconds, 1),
        client_cpu_ms=round(1000 * used / images, 3),
        server_cpu_ms=round(1000 * (cpu_time.of_group(server) - server_cpu) / images, 2),
        bare_cpu_ms=round(bare.cpu_ms(), 3),
        peak_mb=round(peak, 1),
        first_cpu_ms=round(paces[0], 3),
        last_cpu_ms=round(paces[-1], 3),
    )


class _Lines:
    """Counts the lines of a file that another process adds to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines = 0

    def count(self) -> int:
        """Count them, from where the last count ended."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:  # at the end it is renamed
            file.seek(self._read)
            new = file.read()
            self._read += len(new)
            self._lines += new.count(b"\n")
        return self._lines


def _peak_mb(pid: int) -> float:
    """Give the most memory that a process had so far; 0 once it has ended."""
    with suppress(OSError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")] or [""]
        return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    scoring()
