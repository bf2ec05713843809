"""Which names came before, of more than memory should hold."""

from __future__ import annotations

import sqlite3
import threading


class Seen:
    """A set of texts that moves to a temporary file as it grows, and goes with the object."""

    def __init__(self) -> None:
        # Without a name SQLite keeps a database to itself: in memory, and on disk what is more.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        for command in (
            "PRAGMA journal_mode = OFF",
            "CREATE TABLE seen (name BLOB PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(command)

    def add(self, name: str) -> bool:
        """Add a text; tell whether it is new."""
        key = name.encode("utf-8", "surrogatepass")
        with self._lock:
            added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,))
            return added.rowcount > 0

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
