"""What the workers of a run on several machines and the process that started it tell each other."""

from __future__ import annotations


class Board:
    """Holds what was said until it is taken. It lives in a process of its own."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._last = ""
        self._stopped = False

    def tell(self, text: str) -> None:
        """Say something to people, such as that a server went away.

        Every worker notices that. Of several that say the same kind of thing, one is heard.
        """
        kind = text.partition(" ")[0]
        if kind != self._last:
            self._said.append(text)
        self._last = kind

    def take(self) -> list[str]:
        """Give what was said since this was last asked."""
        said, self._said = self._said, []
        return said

    def stop(self) -> None:
        """Have all workers finish what is under way, and begin nothing more."""
        self._stopped = True

    def is_stopped(self) -> bool:
        """Tell whether workers should stop."""
        return self._stopped
