"""Measure what it costs to send files instead of pixels: bytes, images/s, CPU on both sides.

    python -m diffusionad_tools.benchmarks.encoded --repository model_repository --model screw

Serves the repository, draws one picture of a demo part for each size, and
sends it again and again, decoded here (`pixels`) and as it is (`file`), by
turns: on a shared machine the ratio of two neighbours tells more than either.
Caller and server share this machine's cores, so images/s is that of both, and
CPU time, which other programs hardly change, is given for each. Linux only.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from diffusionad_client.sdk.client import Client
from diffusionad_tools.benchmarks import cpu_time
from diffusionad_tools.benchmarks.circumstances import circumstances
from diffusionad_tools.demo_data.part import sample_part
from diffusionad_tools.demo_data.rendering import render
from diffusionad_tools.server.process import ServerSettings, running_server

_SEED = 7
_FORMATS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 90}, "PNG": {}}


@dataclass(frozen=True)
class RequestCost:
    """Medians over the rounds of one way to send an image."""

    images_per_second: float
    caller_cpu_ms: float  # an image, in the calling process
    server_cpu_ms: float  # an image, in Triton and its stubs


@dataclass(frozen=True)
class FormComparison:
    """Both ways for one file, at one number of images under way."""

    format: str
    side: int  # pixels; the picture is square
    concurrency: int
    file_bytes: int  # what goes over the wire
    pixels_bytes: int
    file: RequestCost
    pixels: RequestCost
    speed_ratio: float  # images/s of the file by those of pixels, median over the rounds


@click.command()
@click.option("--repository", required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Category.")
@click.option("--side", "sides", multiple=True, default=(512, 2048), show_default=True, type=int)
@click.option("--concurrency", multiple=True, default=(1, 4), show_default=True, type=int)
@click.option("--rounds", default=5, show_default=True, help="Turns of each way.")
@click.option("--images", default=16, show_default=True, help="Images in a turn.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file.  [default: stdout]")
def encoded(
    repository: Path,
    model: str,
    sides: tuple[int, ...],
    concurrency: tuple[int, ...],
    rounds: int,
    images: int,
    output: Path | None,
) -> None:
    """Compare sending image files with sending pixels, and print a table of it."""
    with (
        running_server(ServerSettings(repository=repository)) as server,
        Client(server.grpc_url, model) as client,
    ):
        size = client.served().metadata.size
        compared = []
        for form, side, file in _files(sides):
            for parallel in concurrency:
                turn = partial(_turn, client, server.pid, file, parallel, images)
                turns = [(turn(encoded=True), turn(encoded=False)) for _ in range(rounds)]
                compared.append(_summary(form, side, parallel, len(file), size, turns))
                click.echo(_row(compared[-1]), err=True)
    document = {**circumstances(), "model": model, "results": [asdict(c) for c in compared]}
    text = json.dumps(document, indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def _files(sides: tuple[int, ...]) -> Iterator[tuple[str, int, bytes]]:
    for side in sides:
        picture = Image.fromarray(render(sample_part(np.random.default_rng(_SEED), side)))
        for form, options in _FORMATS.items():
            file = io.BytesIO()
            picture.save(file, form, **options)
            yield form, side, file.getvalue()


def _turn(
    client: Client, server: int, file: bytes, parallel: int, images: int, *, encoded: bool
) -> RequestCost:
    def ask(_: int) -> None:
        client.inspect(
            file, anomaly_map=False, reconstruction=False, decode="server" if encoded else "client"
        )

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(ask, range(parallel)))  # nothing is measured cold
        started, caller_cpu, server_cpu = (
            time.perf_counter(),
            time.process_time(),
            cpu_time.of_group(server),
        )
        list(pool.map(ask, range(images)))
        took = time.perf_counter() - started
    return RequestCost(
        images_per_second=images / took,
        caller_cpu_ms=1000 * (time.process_time() - caller_cpu) / images,
        server_cpu_ms=1000 * (cpu_time.of_group(server) - server_cpu) / images,
    )


def _summary(
    form: str,
    side: int,
    parallel: int,
    file_bytes: int,
    size: int,
    turns: list[tuple[RequestCost, RequestCost]],
) -> FormComparison:
    files, pixels = zip(*turns, strict=True)
    ratios = [f.images_per_second / p.images_per_second for f, p in turns]
    return FormComparison(
        format=form,
        side=side,
        concurrency=parallel,
        file_bytes=file_bytes,
        pixels_bytes=3 * size * size,
        file=_median(files),
        pixels=_median(pixels),
        speed_ratio=round(statistics.median(ratios), 3),
    )


def _median(costs: tuple[RequestCost, ...]) -> RequestCost:
    columns = zip(*map(astuple, costs), strict=True)
    return RequestCost(*(round(statistics.median(column), 2) for column in columns))


def _row(c: FormComparison) -> str:
    """Write a row of the table in docs/encoded.md."""
    cells = (
        f"{c.format} {c.side}²",
        str(c.concurrency),
        f"{c.file_bytes / 1000:.0f}",
        f"{c.pixels_bytes / 1000:.0f}",
        f"{c.file.images_per_second:.1f}",
        f"{c.pixels.images_per_second:.1f}",
        f"{c.speed_ratio:.2f}",
        f"{c.file.caller_cpu_ms:.1f}",
        f"{c.pixels.caller_cpu_ms:.1f}",
        f"{c.file.server_cpu_ms:.0f}",
        f"{c.pixels.server_cpu_ms:.0f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    encoded()
