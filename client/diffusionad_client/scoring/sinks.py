"""Where the results of a run go. A folder here; a bucket or a table would be a sink too."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import asdict
from typing import Protocol

from diffusionad_client.files import write_aside
from diffusionad_client.output_folders import OutputFolder
from diffusionad_client.scoring.appending import WholeLines
from diffusionad_client.scoring.results import (
    RESULTS_CSV,
    RESULTS_JSONL,
    RESULTS_PARQUET,
    RUN_JSON,
    RunSummary,
)
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.tables import Format, write_table


class Sink(Protocol):
    """Takes the pictures and rows of one run, and makes them its results at the end.

    A context manager: what is left without `finish` is unfinished, and must
    neither pass for results nor have harmed earlier ones. What it has been
    given by then should be kept. All methods raise `OutputError`.
    """

    @property
    def unfinished(self) -> str:
        """Where the rows of a run that ended early are to be found."""

    def put(self, name: str, content: bytes) -> None:
        """Keep one picture under its name, with "/" between folders. Threads call at once."""

    def write(self, row: Row) -> None:
        """Add one row. They come in the order of the source, after their pictures."""

    def finish(self, summary: RunSummary) -> None:
        """Make all that came the results of the run, as one change."""


TABLES = {Format.CSV: RESULTS_CSV, Format.PARQUET: RESULTS_PARQUET}


class FolderSink:
    """Writes results into an output folder; see `results` for its files.

    `goes_on` adds to the whole results that are there, instead of to ones that
    take their place at the end.
    """

    def __init__(
        self,
        output: OutputFolder,
        formats: Collection[Format] = (Format.CSV,),
        *,
        goes_on: bool = False,
    ) -> None:
        self._output = output
        self._formats = formats
        self._goes_on = goes_on
        self._place = output.whole if goes_on else output.part
        self._stack = ExitStack()
        self._rows = self._stack.enter_context(WholeLines(self._place(RESULTS_JSONL)))

    def __enter__(self) -> FolderSink:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def unfinished(self) -> str:
        """The file of the rows so far."""
        return str(self._place(RESULTS_JSONL))

    def put(self, name: str, content: bytes) -> None:
        """Write one picture."""
        folder, _, rest = name.partition("/")
        write_aside(self._place(folder) / rest, content)

    def write(self, row: Row) -> None:
        """Add one row."""
        self._rows.write(json.dumps(row.to_document(), allow_nan=False) + "\n")

    def finish(self, summary: RunSummary) -> None:
        """Make the tables, and put all in the place of the results of an earlier run."""
        self._stack.close()
        for form, name in TABLES.items():
            is_old = self._goes_on and self._output.whole(name).exists()
            if form in self._formats or is_old:
                write_table(self._place(RESULTS_JSONL), self._output.part(name), form)
        text = json.dumps(asdict(summary), indent=2)
        write_aside(self._output.part(RUN_JSON), text.encode())
        self._output.publish(keep_others=self._goes_on)
