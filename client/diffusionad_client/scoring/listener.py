"""Who hears how far a run is."""

from __future__ import annotations

from diffusionad_client.scoring.row import Row


class Listener:
    """Hears of a run, and does nothing about it. Override what is of interest."""

    def row(self, row: Row) -> None:
        """One more image was scored, or failed; its row is written."""

    def skipped(self) -> None:
        """One more image was done by an earlier run."""

    def notice(self, text: str) -> None:
        """Something happened that people want to read: the run pauses, or goes on. Any thread."""
