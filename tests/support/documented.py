"""The shell blocks of the documents, and a place in which they can be run as they stand.

A block is run unless a comment right before it says why not, or which test runs it:

    <!-- not run: needs a GPU -->
    <!-- run by: tests/tools/test_other_clients.py::test_curl_sends_pixels_as_json -->

What a block takes for granted stands in for it: images, a run, a bundle, a repository, servers
under the names that the documents use. `documented_command.py` stands in for `diffusionad`, so that
a training takes seconds and a server does not stop the block.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from waiting import wait_for

from diffusionad_tools.server import linux

ROOT = Path(__file__).parents[2]
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
]
STORIES = ("quick-start.md", "tutorial.md")  # each block goes on where the one before it ended

# Of what takes longer than a few seconds, or needs what does.
_LONG = re.compile(
    r"diffusionad (?:train|evaluate|export|release|serve|watch|demo-data)|--repository"
)
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*) -->\n\n?)?^(?P<indent> *)```(?:sh|console)\n(?P<text>.*?)^ *```",
    re.DOTALL | re.MULTILINE,
)
_ADDRESSES = re.compile(r"\b(?:line[12](?:\.plant)?|triton-[12]|localhost|127\.0\.0\.1):8001\b")

# Beside the rest of PATH. Python starts twice only where a command is not run as it is.
_PROGRAMS = {
    "diffusionad": f"""case "$1" in
  serve | watch | train | demo-data)
    exec {sys.executable} {Path(__file__).with_name("documented_command.py")} "$@" ;;
esac
exec {sys.executable} -m diffusionad_client "$@\"""",
    "python": f'exec {sys.executable} "$@"',
}

# What would not be the same on another machine, or takes what a test has not.
_STAND_INS = {
    "make setup && . .venv/bin/activate\n": "",
    "/mnt/share/incoming": "incoming",
}


@dataclass(frozen=True)
class Block:
    """Shell lines of a page, with the mark before them."""

    page: Path
    line: int
    text: str
    mark: str  # empty: to be run

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_long(self) -> bool:
        """Whether running it takes more than a few seconds."""
        return _LONG.search(self.text) is not None

    @property
    def serves(self) -> bool:
        """Whether it starts a server, which its other commands then reach."""
        return "diffusionad serve" in self.text


def blocks(page: Path) -> list[Block]:
    """All shell blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start("text")),
            re.sub(r"^\$ ", "", match["text"], flags=re.MULTILINE),
            (match["mark"] or "").strip(),
        )
        for match in _BLOCK.finditer(text)
    ]


def run(script: str, place: Path, server: str, port: int) -> str:
    """Run shell lines in a place; gives what they printed.

    `server` is the address that stands in for the documented ones; where the lines start a server
    themselves it listens on `port`, and is stopped at the end.
    """
    for documented, stand_in in _STAND_INS.items():
        script = script.replace(documented, stand_in)
    script = _ADDRESSES.sub(server, script)
    programs = place / ".programs"
    programs.mkdir()
    for name, script_of_it in _PROGRAMS.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\n{script_of_it}\n")
        program.chmod(0o755)
    started = place / ".started"
    started.touch()
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "DIFFUSIONAD_URL": server,
        "DOCUMENTED_PORT": str(port),
        "DOCUMENTED_STARTED": str(started),
    }
    try:
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=place, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        stop([int(line) for line in started.read_text().splitlines()])
    assert ran.returncode == 0, f"exit code {ran.returncode}\n{script}\n{ran.stdout}\n{ran.stderr}"
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.stdout


def stop(processes: list[int]) -> None:
    """Interrupt processes that are nobody's children any more, and see them end."""
    for process in filter(is_running, processes):
        os.kill(process, signal.SIGINT)
    wait_for(lambda: not any(map(is_running, processes)), seconds=60)


def is_running(process: int) -> bool:
    """Whether a process has not ended yet, whether or not somebody has taken note of its end."""
    state = linux.read_state(process)
    return state is not None and state.letter != linux.ZOMBIE
