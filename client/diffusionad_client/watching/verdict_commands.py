"""Run commands of the user's for verdicts, without a shell.

A command gets the image's path and verdict as whole arguments or in its
environment, and its record as a line of JSON on standard input. So no name of
a file, whatever it holds, is ever taken for more than a name.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from diffusionad_client.errors import ArgumentError
from diffusionad_client.scoring.row import Row
from diffusionad_client.watching.sorter import FAILED

ANY = "ANY"
TIMEOUT_S = 30.0
JOBS = 4  # commands at once

_SAID = 300  # characters of what a command said, in a message


@dataclass(frozen=True)
class VerdictCommand:
    """A command for images of one verdict, `FAILED` or `ANY`."""

    verdict: str
    arguments: tuple[str, ...]  # {path}, {verdict} and {score} stand for those of the image

    @classmethod
    def parse(cls, verdict: str, text: str) -> VerdictCommand:
        """Read a command as a shell would split it. Raises `ArgumentError`."""
        try:
            arguments = tuple(shlex.split(text, posix=os.name != "nt"))
        except ValueError as exc:
            raise ArgumentError(f"command {text!r}: {exc}") from exc
        if not arguments or shutil.which(arguments[0]) is None:
            name = arguments[0] if arguments else ""
            raise ArgumentError(
                f"command {text!r}: there is no program {name!r} here; give its path. Shell "
                "syntax goes into a script of its own"
            )
        return cls(verdict, arguments)

    def is_for(self, row: Row) -> bool:
        """Tell whether the command is run for an image."""
        return self.verdict in (ANY, row.verdict or FAILED)

    def run(self, row: Row, path: Path, *, timeout: float = TIMEOUT_S) -> str | None:
        """Run the command for an image that lies at `path`, and say what went wrong.

        It may take `timeout` seconds; then it is killed, with what it started.
        """
        score = "" if row.score is None else repr(row.score)
        values = {"path": str(path), "verdict": row.verdict or FAILED, "score": score}
        environment = {
            **os.environ,
            "DIFFUSIONAD_IMAGE": row.image,
            "DIFFUSIONAD_PATH": values["path"],
            "DIFFUSIONAD_VERDICT": values["verdict"],
            "DIFFUSIONAD_SCORE": score,
        }
        arguments = [_filled(argument, values) for argument in self.arguments]
        with tempfile.TemporaryFile() as record, tempfile.TemporaryFile() as said:
            record.write(json.dumps(row.to_document()).encode() + b"\n")
            record.seek(0)
            try:
                process = subprocess.Popen(
                    arguments,
                    stdin=record,
                    stdout=said,
                    stderr=said,
                    env=environment,
                    start_new_session=True,  # a Ctrl-C is for us
                )
            except (OSError, ValueError) as exc:
                return f"cannot be started: {exc}"
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                _kill(process)
                return f"took longer than {timeout:g} s and was stopped{_last_words(said)}"
            return None if code == 0 else f"ended with {code}{_last_words(said)}"


def commands_for(commands: Sequence[VerdictCommand], row: Row) -> list[VerdictCommand]:
    """Choose the commands of an image."""
    return [command for command in commands if command.is_for(row)]


def _filled(argument: str, values: dict[str, str]) -> str:
    """Put values into an argument, once: what stands in a value stays."""
    for name in values:
        before, place, after = argument.partition(f"{{{name}}}")
        if place:
            return _filled(before, values) + values[name] + _filled(after, values)
    return argument


def _kill(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _last_words(said: IO[bytes]) -> str:
    end = said.seek(0, os.SEEK_END)
    said.seek(max(0, end - _SAID))
    text = " ".join(said.read().decode("utf-8", "replace").split())
    return f": {text}" if text else ""
