"""What happens to a client's process: its clock jumps, it is stopped, or it may have little.

Each is done to a real process. That one is killed is in the tests of scoring and watching.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from waiting import wait_for
from watched import Watched

from diffusionad_client.testing import FakeServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, limits, LD_PRELOAD")

SaveImage = Callable[..., Path]
MiB = 1 << 20


@pytest.fixture
def parts(tmp_path: Path, save_image: SaveImage) -> Path:
    for number in range(40):
        save_image(tmp_path / "parts" / f"{number:02}.png", number)
    return tmp_path / "parts"


@pytest.fixture
def command(triton: FakeServer, parts: Path, tmp_path: Path) -> list[str]:
    program = [sys.executable, "-m", "diffusionad_client", "score", str(parts), "--no-report"]
    return [*program, "--url", triton.url, "--output", str(tmp_path / "out"), "--heatmaps", "none"]


class Clock:
    """The wall clock of processes that are started while it is set."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump("+0")

    def jump(self, offset: str) -> None:
        """Go to so far from the true time, such as "+30d"."""
        beside = self._file.with_suffix(".new")
        beside.write_text(offset)
        beside.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    libfaketime = pytest.importorskip("libfaketime", reason="needs libfaketime")
    library = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
    assert library.is_file()
    file = tmp_path / "clock"
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")  # no jump of a clock touches it
    return Clock(file)


@contextmanager
def running(command: list[str], triton: FakeServer, tmp_path: Path) -> Iterator[Any]:
    """Start a run; give it when it has done some of its images."""
    triton.slow_s = 0.05
    part = tmp_path / "out" / "results.jsonl.part"
    with subprocess.Popen([*command, "--concurrency", "2"], stderr=subprocess.PIPE) as run:
        wait_for(lambda: part.exists() and len(part.read_bytes().splitlines()) > 5, 30)
        yield run
        _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said


def summary(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "run.json").read_text())
    return found


def test_a_run_whose_clock_jumps_loses_no_image_and_knows_how_long_it_took(
    command: list[str], triton: FakeServer, tmp_path: Path, clock: Clock
) -> None:
    began = time.monotonic()
    with running(command, triton, tmp_path):
        clock.jump("+30d")
        time.sleep(0.3)
        clock.jump("-30d")
    done = summary(tmp_path)
    assert (done["images"], done["failed"]) == (40, 0)
    assert 0 < done["seconds"] < time.monotonic() - began
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    months = {json.loads(line)["scored_at"][:7] for line in lines}
    assert len(months) == 3  # it did jump


def test_a_watch_whose_clock_jumps_scores_what_comes_once(
    triton: FakeServer, tmp_path: Path, save_image: SaveImage, clock: Clock
) -> None:
    watch = Watched(tmp_path, triton.url)
    watch.wait_until_ready()
    for number, offset in enumerate(("+0", "+30d", "-30d")):
        clock.jump(offset)
        save_image(watch.folder / f"{number}.png", number)
        watch.wait_for_images(*(f"{done}.png" for done in range(number + 1)))
    assert watch.stop() == 130
    assert triton.counts["ModelInfer"] == 3


def test_a_run_that_is_stopped_for_a_while_goes_on(
    command: list[str], triton: FakeServer, tmp_path: Path
) -> None:
    with running(command, triton, tmp_path) as run:
        os.kill(run.pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(run.pid, signal.SIGCONT)
    done = summary(tmp_path)
    assert (done["images"], done["failed"]) == (40, 0)


def limited(command: list[str], **limits: int) -> subprocess.CompletedProcess[str]:
    """Run a command under limits of the kernel's."""
    setting = "import os, resource, sys\n" + "".join(
        f"resource.setrlimit(resource.{name}, ({most}, {most}))\n" for name, most in limits.items()
    )
    program = [sys.executable, "-c", setting + "os.execv(sys.argv[1], sys.argv[1:])", *command]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def test_a_run_gets_by_with_few_descriptors(command: list[str], tmp_path: Path) -> None:
    done = limited(command, RLIMIT_NOFILE=20)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path)["failed"] == 0


def test_without_descriptors_a_run_says_so_in_a_line(command: list[str]) -> None:
    done = limited(command, RLIMIT_NOFILE=8)
    assert done.returncode == 1
    assert "Too many open files" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_that_memory_does_not_suffice_for_fails_alone(
    command: list[str], parts: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (9900, 9900)).save(parts / "large.jpg")  # 294 MB of pixels, and copies
    done = limited([*command, "--concurrency", "2"], RLIMIT_AS=1000 * MiB)
    assert done.returncode == 3, done.stderr
    assert "large.jpg: there is not enough memory" in done.stderr
    assert (summary(tmp_path)["images"], summary(tmp_path)["failed"]) == (41, 1)


THREADS = """
import resource, threading
from diffusionad_client.cli import main
from diffusionad_client.scoring import workers
start = workers.Workers.__init__
def limited(self, count, name):
    threading.stack_size(256 << 20)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (700 << 20),) * 2)
    start(self, count, name)
workers.Workers.__init__ = limited
main()
"""


def test_too_few_threads_are_an_error_in_a_line(command: list[str]) -> None:
    words = [sys.executable, "-c", THREADS, *command[3:], "--concurrency", "8"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "this process may not start 8 threads" in done.stderr
    assert "Traceback" not in done.stderr
