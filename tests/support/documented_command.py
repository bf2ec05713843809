"""Stands in for `diffusionad` while documents are run: the real command, but for what has no end.

A training and made-up pictures are made small. `serve` goes on beside the lines that follow it, and
is stopped by who runs them. `watch` is stopped when it has a result.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from demo_product import SHALLOW
from waiting import wait_for

from diffusionad_client.local_server import READY_PREFIX

PATIENCE_S = 120.0
COMMAND = (sys.executable, "-m", "diffusionad_client")
INTERRUPTED = 130
BEGINS = "Watching for"  # what a watch says when it can be interrupted

# Of the last of an option given twice, click takes the value.
SMALL = {
    "train": (
        *("--steps", "3", "--image-size", "64", "--batch", "4", "--workers", "0"),
        *SHALLOW,  # as the run has that stands in for earlier ones, from which one may go on
    ),
    "demo-data": ("--test-good", "3", "--defective", "1", "--size", "96"),
}


def main(words: list[str]) -> int:
    if words[0] == "serve":
        return serve(words)
    if words[0] == "watch":
        return watch(words)
    return subprocess.run([*COMMAND, *small(words)], check=False).returncode


def small(words: list[str]) -> list[str]:
    """The same command on less: what it is told of time and numbers does not count."""
    if "--time-budget" in words:
        place = words.index("--time-budget")
        del words[place : place + 2]
    if words[0] == "demo-data" and "--train" not in words:
        words = [*words, "--train", "8"]
    return [*words, *SMALL.get(words[0], ())]


def serve(words: list[str]) -> int:
    """Start a server, and leave it when it is ready."""
    log = Path(f".served-{os.getpid()}")
    ports = ("--grpc-port", os.environ["DOCUMENTED_PORT"], "--metrics-port", "0")
    with log.open("w") as file:
        process = subprocess.Popen([*COMMAND, *words, *ports], stdout=file, stderr=file)
    with Path(os.environ["DOCUMENTED_STARTED"]).open("a") as started:
        started.write(f"{process.pid}\n")
    wait_for(lambda: READY_PREFIX in log.read_text() or process.poll() is not None, PATIENCE_S)
    if process.poll() is not None:
        sys.stderr.write(log.read_text())
        return process.returncode or 1
    return 0


def watch(words: list[str]) -> int:
    """Watch until there is a result, and stop as Ctrl-C does."""
    results = Path(words[words.index("--output") + 1]) / "results.jsonl"
    log = Path(f".watched-{os.getpid()}")

    def has_results() -> bool:
        return BEGINS in log.read_text() and results.exists() and results.stat().st_size > 0

    with log.open("w") as file:
        process = subprocess.Popen([*COMMAND, *words], stderr=file)
    wait_for(lambda: has_results() or process.poll() is not None, PATIENCE_S)
    process.send_signal(signal.SIGINT)
    code = process.wait(PATIENCE_S)
    sys.stderr.write(log.read_text())
    return 0 if code == INTERRUPTED else code or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
