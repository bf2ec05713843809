"""What `diffusionad serve` says, for people or for machines; as JSON, Triton's lines are in it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from diffusionad_client.commands.log_lines import json_line
from diffusionad_client.errors import DiffusionADError
from diffusionad_client.local_server import READY_PREFIX
from diffusionad_tools.server.log import RecordLog, append_to
from diffusionad_tools.server.triton_lines import LogRecord

_OURS, _TRITONS = "serve", "triton"  # the values of `source`


class ServeLog:
    """Progress on standard error, the address on standard output, each as text.

    What Triton prints is not part of it: `records` is None, and a file has it.
    """

    records: RecordLog | None = None

    def say(self, text: str, level: str = "info") -> None:
        """Tell of progress, in a line."""
        click.echo(text, err=True)

    def ready(self, url: str) -> None:
        """Tell where gRPC answers, now that it does."""
        click.echo(f"{READY_PREFIX}{url}")
        sys.stdout.flush()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Leave an error to the command line, which says it in a line."""
        yield


class JsonServeLog(ServeLog):
    """The same lines, and Triton's with them, as JSON: `time`, `level`, `source`, `message`.

    Triton's lines have their `place` in its source and their `process`, and go
    to `triton` if that is a file, else to standard error. The line that tells
    the address has it as `url`.
    """

    def __init__(self, triton: TextIO | None, place: str) -> None:
        self._triton = triton
        self._writing = threading.Lock()
        self.records = RecordLog(self._record, place)

    def say(self, text: str, level: str = "info") -> None:
        """Tell of progress."""
        self._write(sys.stderr, level, source=_OURS, message=text)

    def ready(self, url: str) -> None:
        """Tell where gRPC answers, now that it does."""
        self._write(sys.stdout, "info", source=_OURS, message=f"{READY_PREFIX}{url}", url=url)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Say an error as JSON too, and end the command with exit code 1."""
        try:
            yield
        except DiffusionADError as exc:
            self.say(str(exc), "error")
            raise click.exceptions.Exit(1) from exc

    def _record(self, record: LogRecord) -> None:
        own = {} if record.place is None else {"place": record.place, "process": record.process}
        self._write(
            self._triton or sys.stderr,
            record.level,
            time=record.time,
            source=_TRITONS,
            message=record.message,
            **own,
        )

    def _write(self, file: TextIO, level: str, **values: Any) -> None:
        line = json_line(level, **values)
        with self._writing:  # Triton's lines come from a thread of their own
            print(line, file=file, flush=True)


@contextmanager
def open_log(log_format: str, log_file: Path | None) -> Iterator[ServeLog]:
    """Open the log that a command writes. Raises `ServeError` for a file that cannot be written."""
    if log_format == "text":
        yield ServeLog()
    elif log_file is None:
        yield JsonServeLog(None, "among the lines here")
    else:
        with io.TextIOWrapper(append_to(log_file), encoding="utf-8") as file:
            yield JsonServeLog(file, str(log_file))
