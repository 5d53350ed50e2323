"""What was measured: rows with their ratio, as a table for the eye and as ``RESULTS.md``."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

FILE = Path(__file__).parent / "RESULTS.md"
_COLUMNS = ("figure", "ours", "peer", "its figure", "ratio (least to most)", "goal")
_METHOD = """\
Servers on one core, generators on another; servers are real processes, sockets are loopback. Each ratio is taken from
two measurements beside each other in the same run; the median of three or more stands here. A ratio is ours divided by
the peer's. Absolute numbers are of this machine and say little elsewhere; a ratio travels better.
"""


class Row(msgspec.Struct, frozen=True):
    """One figure. ``ours`` and ``theirs`` hold one value per repetition, in the order of the run."""

    figure: str
    unit: str
    ours: tuple[float, ...]
    peer: str = ""
    theirs: tuple[float, ...] = ()
    #: Their quotients, repetition by repetition.
    goal: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(a / b for a, b in zip(self.ours, self.theirs, strict=True) if b) if self.theirs else ()

    def cells(self) -> tuple[str, ...]:
        """Return what stands in the columns of a table."""
        ratios = self.ratios
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        if len(ratios) > 1:
            ratio += f" ({min(ratios):.2f} to {max(ratios):.2f})"
        theirs = number(statistics.median(self.theirs), self.unit) if self.theirs else ""
        return (self.figure, number(statistics.median(self.ours), self.unit), self.peer, theirs, ratio, self.goal)


class Section(msgspec.Struct, frozen=True):
    """One benchmark's rows, and how they came about."""

    name: str
    method: str
    rows: tuple[Row, ...]


def number(value: float, unit: str) -> str:
    """Return ``value`` with three digits that matter."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def markdown(sections: Sequence[Section], facts: Mapping[str, str], command: str, date: datetime.date) -> str:
    """Return ``RESULTS.md``."""
    about = [f"- {name}: {text}" for name, text in {"command": f"`{command}`", "date": str(date), **facts}.items()]
    parts = ["# Results", "\n".join(about), _METHOD.strip()]
    for section in sections:
        lines = [_COLUMNS, ("---",) * len(_COLUMNS), *(row.cells() for row in section.rows)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        parts += [f"## {section.name}", section.method, table]
    return "\n\n".join(parts) + "\n"


def show(section: Section, console: Console) -> None:
    table = Table(*_COLUMNS, title=section.name, caption=section.method, title_justify="left", caption_justify="left")
    for row in section.rows:
        table.add_row(*row.cells())
    console.print(table)
