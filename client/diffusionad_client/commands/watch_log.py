"""What a watch says on standard error: a line for each image, for people or for machines."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffusionad_client.commands.log_lines import json_line, stamp
from diffusionad_client.scoring.row import Row
from diffusionad_client.watching.run import WatchListener
from diffusionad_client.watching.sorter import FAILED

if TYPE_CHECKING:
    from diffusionad_client.watching.counts import Counts


class WatchLog(WatchListener):
    """Writes a line for each image, command that failed, and notice, and counts them.

    As text a line is for people; as JSON it has `time`, `level`, `event` and
    what belongs to it. A name that holds a line end makes no second line.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        counts: Counts | None = None,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._as_json = as_json
        self._write_line = _to_standard_error if write is None else write
        self._counts = counts
        self._writing = threading.Lock()

    def begin(self, category: str, incomplete: Callable[[], int]) -> None:
        """Say what is watched for."""
        if self._counts is not None:
            self._counts.begin(category, incomplete)
        self._write("info", "begins", f"Watching for {category}", category=category)

    def row(self, row: Row) -> None:
        """Say what came of an image."""
        if self._counts is not None:
            self._counts.row(row)
        if row.error_type is not None:
            self._write(
                *("error", "image", f"{FAILED}       {row.image}: {row.error_message}"),
                image=row.image,
                verdict=FAILED,
                error={"type": row.error_type, "message": row.error_message},
                fields=dict(row.fields),
            )
            return
        score = "nan" if row.score is None else f"{row.score:.3f}"
        self._write(
            *("info", "image", f"{row.verdict:<6} {score} {row.image}"),
            image=row.image,
            verdict=row.verdict,
            score=row.score,
            category=row.model,
            release=row.release,
            request_id=row.request_id,
            request_s=row.request_s,
            fields=dict(row.fields),
        )

    def notice(self, text: str) -> None:
        """Pass a notice on."""
        self._write("warning", "notice", text, message=text)

    def ran(self, row: Row, trouble: str | None) -> None:
        """Say what went wrong with a command."""
        if self._counts is not None:
            self._counts.command(row, failed=trouble is not None)
        if trouble is not None:
            verdict = row.verdict or FAILED
            self._write(
                *("error", "command", f"Command for {verdict} of {row.image}: {trouble}"),
                image=row.image,
                verdict=verdict,
                trouble=trouble,
            )

    def _write(self, level: str, event: str, text: str, **values: Any) -> None:
        if self._as_json:
            line = json_line(level, event=event, **values)
        else:
            line = f"{stamp()} {_printable(text)}"
        with self._writing:
            self._write_line(line)


def _to_standard_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
