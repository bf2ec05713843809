"""Read what Triton and the processes of its models print: its own log lines, and whatever else.

    E1129 03:54:25.465842 4717 file.cc:642] "failed to load 'm' version 1: Internal: ..."

Times are UTC, without a year. Tables follow a line without a message and end with an empty one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "critical"}

_OWN = re.compile(
    r"(?P<level>[IWEF])(?P<month>\d\d)(?P<day>\d\d) (?P<clock>\d\d:\d\d:\d\d\.\d{6}) +"
    r"(?P<process>\d+) (?P<place>[^\]]+)\] ?(?P<message>.*)"
)
_COLOUR = re.compile(r"\x1b?\[\d[\d;]*m")  # the library for HTTP writes some, not all whole
_SAYS_ERROR = re.compile(r"(error|fatal|terminate called)\b", re.IGNORECASE)
_LONGEST = 500  # lines of one table; more are no table


@dataclass(frozen=True)
class LogRecord:
    """What was logged at once. `place` and `process` are of Triton's own lines alone."""

    time: datetime | None  # None: now
    level: str  # one of the values of LEVELS
    message: str
    place: str | None = None  # file:line of Triton's source
    process: int | None = None


class TritonLines:
    """Makes records of lines. One reader a stream: a table is one record."""

    def __init__(self) -> None:
        self._table: tuple[LogRecord, list[str]] | None = None

    def read(self, line: str) -> Iterator[LogRecord]:
        """Take a line, without its end; give the records that it completes."""
        own = _own(line)
        if self._table is not None:
            if own is None and line and len(self._table[1]) < _LONGEST:
                self._table[1].append(line)
                return
            yield from self.end()
        if own is not None and not own.message:
            self._table = (own, [])
        elif own is not None:
            yield own
        elif text := _COLOUR.sub("", line).strip():
            yield LogRecord(None, "error" if _SAYS_ERROR.match(text) else "info", text)

    def end(self) -> Iterator[LogRecord]:
        """Give the table that nothing has ended yet."""
        if self._table is not None:
            head, lines = self._table
            self._table = None
            yield LogRecord(head.time, head.level, "\n".join(lines), head.place, head.process)


def _own(line: str) -> LogRecord | None:
    """Read one of Triton's own lines; None for any other."""
    found = _OWN.fullmatch(line)
    if found is None:
        return None
    return LogRecord(
        _time(f"{found['month']}{found['day']} {found['clock']}"),
        LEVELS[found["level"]],
        _message(found["message"]),
        found["place"],
        int(found["process"]),
    )


def _message(text: str) -> str:
    """Take the quotes off, and what is escaped for their sake."""
    if text[:1] == text[-1:] == '"' and len(text) > 1:
        try:
            return str(json.loads(text, strict=False))
        except json.JSONDecodeError:
            return text[1:-1]
    return text


def _time(text: str) -> datetime | None:
    """Read a time of the last year; None for what is no date, such as 30 February."""
    now = datetime.now(timezone.utc)
    for year in (now.year, now.year - 1):
        try:
            read = datetime.strptime(f"{year}{text}+0000", "%Y%m%d %H:%M:%S.%f%z")
        except ValueError:
            continue
        if read < now + timedelta(days=1):  # else of December, read in January
            return read
    return None
