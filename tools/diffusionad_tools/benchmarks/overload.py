"""Measure a server under three times the load that it can serve.

    python -m diffusionad_tools.benchmarks.overload --repository model_repository --model demo_plate

Serves the repository as `diffusionad serve` does. A round has four parts: a
line that sends now and then (calm); as many batch requests as are answered
(saturation); three times as many, whatever the answers, while the line goes on
(the flood); and the line alone again. Both forms are tried: pixels, and image
files that the server decodes. The callers share this machine with the server,
so a flood costs the server some of its processor, which it would not elsewhere.
Linux only.
"""

from __future__ import annotations

import io
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from PIL import Image

from diffusionad_client import Client, contract
from diffusionad_client.contract import Priority
from diffusionad_tools.benchmarks.callers import Call, Callers, LoadRequest, callers, soon
from diffusionad_tools.benchmarks.circumstances import circumstances
from diffusionad_tools.demo_data.part import sample_part
from diffusionad_tools.demo_data.rendering import render
from diffusionad_tools.server import linux
from diffusionad_tools.server.checks import choose_config
from diffusionad_tools.server.process import ServerSettings, TritonProcess, running_server

FORMS = ("pixels", "file")
OVERLOAD = 3.0  # times saturation
AT_ONCE = 32  # batch requests under way at saturation
LINE_SHARE = 0.15  # of saturation, that the line sends
SETTLED_S = 1.0  # of each part, that does not count: what was empty fills
REFUSED_WITHIN_S = 0.1
AS_CALM = 2.0  # times the line's calm 99th percentile: what is still normal
_LOOK_EVERY_S = 0.1
_PENDING = "nv_inference_pending_request_count"


@dataclass(frozen=True)
class Round:
    """One round's calls, and what was seen of the server meanwhile."""

    calm: list[Call]
    saturation: float  # answers a second
    flood: list[Call]
    line: list[Call]  # during the flood and after it
    begin: float  # of the flood, s
    end: float
    waiting: Counter[str]  # the most requests that a model had waiting
    growth: float  # of the server's memory, from the flood's first second on

    @property
    def goodput(self) -> float:
        """Answers a second in the flood, the line's among them."""
        since = self.begin + SETTLED_S
        done = [c for c in (*self.flood, *self.line) if not c.error and since < c.ended < self.end]
        return len(done) / (self.end - since)


@dataclass(frozen=True)
class Figures:
    """What the rounds of one form came to, to be held against what is promised."""

    saturation: float  # images/s
    goodput: float  # share of saturation
    refused: int
    refused_s: float  # 99th percentile of the time to a refusal
    refused_late: float  # share of refusals that took longer than REFUSED_WITHIN_S
    other_errors: Counter[str]  # of the flood that are no retryable ServerBusyError
    calm_s: float  # 99th percentile of the line
    line_s: float  # the same in the flood
    line_lost: int  # calls of the line that failed
    waiting: Counter[str]
    growth: float
    normal_s: float  # after the flood's end, until the line's last slow call was answered


@dataclass
class _Looks:
    waiting: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)


@click.command()
@click.option("--repository", required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Category.")
@click.option("--form", "forms", multiple=True, default=FORMS, type=click.Choice(FORMS))
@click.option("--side", default=320, show_default=True, help="Of the files' pictures, in pixels.")
@click.option("--seconds", default=10.0, show_default=True, help="Of each part of a round.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file.")
def overload(
    repository: Path,
    model: str,
    forms: tuple[str, ...],
    side: int,
    seconds: float,
    rounds: int,
    output: Path | None,
) -> None:
    """Print a table of what is promised under three times the load, and what was seen."""
    found = {}
    with serving(repository) as server:
        for form in forms:
            found[form] = measure(server, model, form, side=side, seconds=seconds, rounds=rounds)
    click.echo("\n".join(table(found)))
    if output is not None:
        document = {**circumstances(), "figures": {k: vars(v) for k, v in found.items()}}
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def serving(repository: Path) -> AbstractContextManager[TritonProcess]:
    """Serve a repository as `diffusionad serve` does on this machine, with metrics."""
    name = choose_config(repository)
    settings = ServerSettings(repository=repository, config_name=name, metrics_port=0)
    return running_server(settings)


def measure(
    server: TritonProcess, model: str, form: str, *, side: int, seconds: float, rounds: int
) -> Figures:
    """Run the rounds of one form. `side` is of the picture in a file, `seconds` of each part."""
    with Client(server.grpc_url, model) as client:
        size = client.served().metadata.size
    name, batch = _sent(model, form, side if form == "file" else size)
    line = LoadRequest(server.grpc_url, name, batch, Priority.INLINE)
    flood = LoadRequest(server.grpc_url, name, batch, Priority.BATCH)
    with callers(2) as crowd:
        _saturation(crowd, flood, SETTLED_S)  # nothing is measured cold
        return _figures([_round(server, crowd, line, flood, seconds) for _ in range(rounds)])


def table(found: dict[str, Figures]) -> list[str]:
    """Write the rows of docs/reliability.md."""
    rows: list[tuple[str, str, Callable[[Figures], str]]] = [
        ("images/s at saturation", "", lambda f: f"{f.saturation:.1f}"),
        ("goodput, of saturation", "≥ 95 %", lambda f: f"{f.goodput:.1%}"),
        ("refused", "", lambda f: str(f.refused)),
        ("refused within, 99 %", "≤ 100 ms", lambda f: _ms(f.refused_s)),
        ("refused later than 100 ms", "", lambda f: f"{f.refused_late:.2%}"),
        ("other errors", "none", lambda f: str(dict(f.other_errors) or "none")),
        ("line's p99, calm", "", lambda f: _ms(f.calm_s)),
        ("line's p99, in the flood", "≤ 2 × calm", lambda f: _times(f.line_s, f.calm_s)),
        ("line's calls that failed", "none", lambda f: str(f.line_lost or "none")),
        ("most waiting, by model", "bounded", lambda f: _counts(f.waiting)),
        ("memory's growth in the flood", "none", lambda f: f"{f.growth:.1%}"),
        ("normal again after", "≤ 5 s", lambda f: f"{f.normal_s:.2f} s"),
    ]
    head = ["| | promised | " + " | ".join(found) + " |", "| --- |" + " --- |" * (len(found) + 1)]
    return head + [
        f"| {what} | {promised} | {' | '.join(shown(f) for f in found.values())} |"
        for what, promised, shown in rows
    ]


def percentile(calls: list[Call], share: float = 99) -> float:
    """Give a percentile of what calls took, in s; 0 of none."""
    return float(np.percentile([call.seconds for call in calls], share)) if calls else 0.0


def _sent(model: str, form: str, side: int) -> tuple[str, Any]:
    picture = render(sample_part(np.random.default_rng(0), side))
    if form == "pixels":
        return model, picture[np.newaxis]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    batch = np.empty((1, 1), np.object_)
    batch[0, 0] = file.getvalue()
    return contract.encoded_model(model), batch


def _saturation(crowd: Callers, request: LoadRequest, seconds: float) -> float:
    begin = soon()
    calls = crowd.at_once(request, AT_ONCE, seconds, begin).result()
    since, end = begin + SETTLED_S, begin + seconds
    return sum(not c.error and since < c.ended < end for c in calls) / max(end - since, 0.1)


def _round(
    server: TritonProcess, crowd: Callers, line: LoadRequest, flood: LoadRequest, seconds: float
) -> Round:
    saturation = _saturation(crowd, flood, seconds)
    rate = LINE_SHARE * saturation
    calm = crowd.at_rate(line, rate, seconds, soon()).result()
    begin = soon()
    with _looking(server) as looks:
        inline = crowd.at_rate(line, rate, 2 * seconds, begin)
        batch = crowd.at_rate(flood, OVERLOAD * saturation - rate, seconds, begin)
        flooded, lined = batch.result(), inline.result()
    memory = [held for at, held in looks.memory if begin + SETTLED_S < at < begin + seconds]
    return Round(
        calm=calm,
        saturation=saturation,
        flood=flooded,
        line=lined,
        begin=begin,
        end=begin + seconds,
        waiting=looks.waiting,
        growth=max(memory) / memory[0] - 1,
    )


def _figures(rounds: list[Round]) -> Figures:
    flood = [call for each in rounds for call in each.flood]
    refused = [call for call in flood if call.error == "ServerBusyError" and call.retryable]
    line = [call for each in rounds for call in each.line if call.at < each.end]
    calm = percentile([call for each in rounds for call in each.calm])
    waiting: Counter[str] = Counter()
    for each in rounds:
        waiting |= each.waiting  # the larger of two counts
    return Figures(
        saturation=median(each.saturation for each in rounds),
        goodput=median(each.goodput / each.saturation for each in rounds),
        refused=len(refused),
        refused_s=percentile(refused),
        refused_late=sum(c.seconds > REFUSED_WITHIN_S for c in refused) / max(len(refused), 1),
        other_errors=Counter(c.error for c in flood if c.error and c not in refused),
        calm_s=calm,
        line_s=percentile(line),
        line_lost=sum(bool(call.error) for each in rounds for call in each.line),
        waiting=waiting,
        growth=max(each.growth for each in rounds),
        normal_s=max(_normal_after(each, AS_CALM * calm) for each in rounds),
    )


def _normal_after(one: Round, slow_s: float) -> float:
    slow = [c.ended for c in one.line if c.at > one.end and (c.error or c.seconds > slow_s)]
    return max(slow, default=one.end) - one.end


@contextmanager
def _looking(server: TritonProcess) -> Iterator[_Looks]:
    """Look at what waits in the server and at its memory, for as long as the context lasts."""
    looks, over = _Looks(), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY_S):
            looks.waiting |= pending(server.metrics_url)
            # The server and its stubs; what they share counts for each.
            held = sum(map(linux.resident_bytes, linux.members(server.pid)))
            looks.memory.append((time.monotonic(), held))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join()


def pending(metrics_url: str) -> Counter[str]:
    """Read how many requests wait for each model."""
    with urllib.request.urlopen(f"http://{metrics_url}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    counted = (line for line in lines if line.startswith(f"{_PENDING}{{"))
    return Counter(
        {line.split('model="')[1].split('"')[0]: int(line.split()[-1]) for line in counted}
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _times(seconds: float, calm: float) -> str:
    return f"{_ms(seconds)}, {seconds / calm:.2f} ×" if calm else _ms(seconds)


def _counts(waiting: Counter[str]) -> str:
    return ", ".join(f"{name} {most}" for name, most in waiting.most_common() if most)


if __name__ == "__main__":
    overload()
