"""Rows for people: a table where the terminal is wide enough, else one block a row; no word is ever broken."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print ``rows``; as blocks, the first cell stands alone above the others, and empty cells are left out."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if Measurement.get(console, console.options, table).maximum <= console.width and _widest(rows) < console.width:
        console.print(table)
        return
    indent = max(map(len, headings[1:]), default=0)
    for row in rows:
        console.print(row[0])
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            if cell:
                console.print(f"  {heading:{indent}}  {cell}")


def _widest(rows: Sequence[Sequence[str]]) -> int:
    """The least width of a table of ``rows``: rich measures none above the console's own."""
    columns = zip(*rows, strict=True)
    return sum(max(map(len, column)) + 1 for column in columns)
