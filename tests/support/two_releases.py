"""Two releases of a category, and a line whose answers are held against them, all the time.

They are the handmade model's with different gains and thresholds, so that an answer that mixes
both is noticed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusionad_client.artifacts.metadata import Thresholds
from diffusionad_client.pages import pictures
from diffusionad_client.sdk.client import Client
from diffusionad_tools.release.promote import promote

GAINS = {"1": 0.5, "2": 0.75}
PAUSE_S = 0.02  # between a line's requests, or else nothing is left of a machine to load models
LIMITS = {"1": Thresholds(accept=0.2, reject=0.3), "2": Thresholds(accept=0.25, reject=0.35)}


def fill(
    repository: Path,
    make_bundle: Any,
    publish_ungated: Any,
    handmade_model: Any,
    *,
    encoded: bool = True,
) -> Path:
    """Publish versions 1 and 2 of "widget", and serve 1."""
    for version, gain in GAINS.items():
        bundle = make_bundle(model=handmade_model(gain=gain), thresholds=LIMITS[version])
        publish_ungated(bundle, repository, encoded=encoded)
    promote(repository, "widget", 1)
    return repository


@dataclass(frozen=True)
class Answer:
    """Of one request: when it was answered, by which server, under which release."""

    at: float
    server: str
    version: str
    encoded: bool


@dataclass
class Traffic:
    """What a line got for its requests, and what went wrong."""

    answers: list[Answer] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def by_release(self) -> Counter[tuple[str, bool]]:
        """How many answers each version gave, plain and encoded."""
        return Counter((answer.version, answer.encoded) for answer in self.answers)

    def by_server(self, since: float = 0.0) -> Counter[str]:
        """How many answers each server gave, from a time on."""
        return Counter(answer.server for answer in self.answers if answer.at >= since)


@contextmanager
def traffic(
    urls: Sequence[str],
    handmade_model: Any,
    *,
    threads: int,
    files: int = 0,
    pause: float = PAUSE_S,
    **options: Any,
) -> Iterator[Traffic]:
    """Score from several threads, all the time, while the context lasts.

    All share a client, made with `options`. Of them `files` send a file, which the server decodes.
    """
    (image,) = handmade_model().images(1)
    file = pictures.png(Image.fromarray(image))
    expected = {v: handmade_model(gain=gain).answer(image)[0] for v, gain in GAINS.items()}
    found = Traffic()
    over = threading.Event()

    def score(client: Client, encoded: bool) -> None:
        while not over.is_set():
            try:
                answer = client.inspect(
                    file if encoded else image,
                    anomaly_map=False,
                    reconstruction=False,
                    decode="server" if encoded else None,
                )
            except Exception as exc:  # whatever it is, a part was lost
                found.wrong.append(repr(exc))
                continue
            found.answers.append(Answer(time.monotonic(), answer.server, answer.version, encoded))
            if answer.thresholds != LIMITS[answer.version] or not np.isclose(
                answer.score, expected[answer.version], atol=1e-5
            ):
                found.wrong.append(f"an answer of two releases: {answer}")
            time.sleep(pause)

    with ExitStack() as stack:
        client = stack.enter_context(Client(list(urls), "widget", **options))
        running = [
            threading.Thread(target=score, args=(client, number < files))
            for number in range(threads)
        ]
        for thread in running:
            thread.start()
        try:
            yield found
        finally:
            over.set()
            for thread in running:
                thread.join()
