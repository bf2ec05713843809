"""Tables on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_UNBOUNDED = 10_000  # columns; a table is as wide as its content, whatever the terminal


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> None:
    """Print a table at its natural width; the last `numbers` columns are aligned as numbers.

    A terminal that is narrower wraps its lines; nothing is left out.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        is_number = place >= len(headings) - numbers
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=_UNBOUNDED, highlight=False, markup=False).print(table)
