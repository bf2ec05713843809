"""Items in a message: a line each, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5


def listed(items: Sequence[object], most: int = SHOWN) -> str:
    """Give lines that are set in, of `most` items at the most."""
    lines = [f"  {item}" for item in items[:most]]
    if len(items) > most:
        lines.append(f"  and {len(items) - most} more")
    return "\n".join(lines)
