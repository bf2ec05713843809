"""What is asked of the server, each in a thread: parts on the line, folders, and nonsense."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from diffusionad_client.contract import Priority
from diffusionad_client.errors import DiffusionADError, ImageError
from diffusionad_client.sdk.arguments import Decode
from diffusionad_client.sdk.client import Client
from diffusionad_tools.soak.tally import GivenAnswer, SoakTally

# For one call, and for all that a restart holds up: nothing may be lost by it.
PATIENCE_S = 300.0
_PAUSE_S = 0.05  # of a line, between two parts; of nonsense, ten times as long
_DECODES: tuple[Decode, ...] = ("client", "auto", "server")

Load = Callable[[threading.Event], None]  # runs until the event is set


def inline(client: Client, images: Mapping[str, Path], tally: SoakTally) -> Load:
    """Send images in turn, as a line does, in each of the forms in which a file can be sent."""

    def run(stop: threading.Event) -> None:
        forms = itertools.cycle(_DECODES)
        for name, path in itertools.cycle(images.items()):
            if stop.wait(_PAUSE_S):
                return
            tally.count("inline asked")
            try:
                found = client.inspect(
                    path, decode=next(forms), anomaly_map=False, reconstruction=False
                )
            except DiffusionADError as exc:
                tally.breaks("lost", f"{name}: {type(exc).__name__}: {exc}")
            else:
                answer = GivenAnswer(name, found.release, found.score, found.verdict.value)
                tally.answered("inline", answer)

    return run


def nonsense(client: Client, tally: SoakTally) -> Load:
    """Send files that are no images, which must be refused as such."""
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(whole, "PNG")
    files = (b"", b"this is no image", whole.getvalue()[:60], b"\xff\xd8\xff" + bytes(500))

    def run(stop: threading.Event) -> None:
        decodes = itertools.cycle(_DECODES)
        for file in itertools.cycle(files):
            if stop.wait(10 * _PAUSE_S):
                return
            try:
                client.inspect(file, decode=next(decodes), priority=Priority.BATCH)
            except ImageError:
                tally.count("refused")
            except DiffusionADError as exc:
                what = f"{file[:20]!r}: {type(exc).__name__}: {exc}"
                tally.breaks("refused for another reason", what)
            else:
                tally.breaks("taken", f"{file[:20]!r} was scored")

    return run


def folders(url: str, model: str, images: Path, place: Path, tally: SoakTally) -> Load:
    """Score the folder of all images again and again, each time in a process of its own.

    One that the end of the soak finds at work is let finish. `place` is for its results.
    """
    names = {path.name for path in images.iterdir()}

    def run(stop: threading.Event) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            output = place / f"run-{number}"
            command = [
                *(sys.executable, "-m", "diffusionad_client", "score", str(images)),
                *("--url", url, "--model", model, "--output", str(output)),
                *("--no-report", "--heatmaps", "none", "--patience", str(PATIENCE_S)),
            ]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if not output.exists():  # it found no server, said so and promised nothing
                tally.count("folders not begun")
                stop.wait(10 * _PAUSE_S)
                continue
            if ran.returncode != 0:
                said = ran.stderr.strip().splitlines()[-1:]
                tally.breaks("lost", f"{output.name} ended with {ran.returncode}: {said}")
            check_results(output, names, tally)
            shutil.rmtree(output, ignore_errors=True)
            tally.count("folders")

    return run


def check_results(output: Path, expected: set[str], tally: SoakTally) -> None:
    """Hold a run's results against the golden run: each image once, and none else."""
    file = output / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = {row["image"]: row for row in map(json.loads, lines)}  # of several the last one holds
    for name in sorted(expected - rows.keys()):
        tally.breaks("lost", f"{name} is not in {output.name}")
    for name, row in rows.items():
        if row["error"] is not None:
            tally.breaks("lost", f"{name} in {output.name}: {row['error']}")
        else:
            answer = GivenAnswer(name, row["release"], row["score"], row["verdict"])
            tally.answered("from folders", answer)


@contextmanager
def running(loads: list[Load], tally: SoakTally) -> Iterator[None]:
    """Run loads in threads while the context lasts, and wait for what they have begun."""
    stop = threading.Event()

    def guarded(load: Load) -> None:
        try:
            load(stop)
        except Exception as exc:  # a load that ends early would be a soak of less, and nobody told
            tally.breaks("ended", f"a load ended with {type(exc).__name__}: {exc}")

    threads = [threading.Thread(target=guarded, args=(load,), name="soak-load") for load in loads]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
