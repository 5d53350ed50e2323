"""Somebody who watches with `gateway sub`: what it showed, against what the log has."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.whole.evidence import Told
from tests.whole.stage import PROGRAM, WITHIN, Whole


class Watcher:
    """Use `watching`."""

    def __init__(self, topics: Sequence[str], out: Path, notes: Path) -> None:
        self._topics, self._out, self._notes = topics, out, notes

    def faults(self, log: Sequence[Told], *, ended: bool = True) -> list[str]:
        """Say what of ``log`` was not shown since the watcher came, or not in its order, topic by topic.

        ``ended`` is whether to read also what it said of itself. What somebody killed had told comes again.
        """
        shown, there = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
        for line in self._out.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                one = json.loads(line)
                shown[one["topic"]].append(one["id"])
        for event in log:
            there[event.topic].append(event.id)
        found = [f"{topic}: nothing was shown" for topic in self._topics if topic in there and topic not in shown]
        for topic, ids in shown.items():
            once, right = list(dict.fromkeys(ids)), there[topic]
            if once[0] not in right or once != right[right.index(once[0]) :]:
                found.append(f"{topic}: {len(once)} were shown from {once[0]}, and are not the {len(right)} of the log")
        notes = self._notes.read_text() if ended else ""
        return [*found, *(line for line in notes.splitlines() if "missing" in line or "not shown" in line)]


@contextmanager
def watching(stage: Whole, topics: Sequence[str]) -> Iterator[Watcher]:
    """An operator watches ``topics`` in the block."""
    out, notes = stage.folder / "sub.out", stage.folder / "sub.notes"
    words = (*PROGRAM, "sub", *topics, "--json", "--token-file", str(stage.data / "operator.token"))
    with out.open("wb") as said, notes.open("wb") as noted:
        program = subprocess.Popen(words, env=stage.env, cwd=stage.folder, stdout=said, stderr=noted)
    try:
        yield Watcher(topics, out, notes)
    finally:
        program.terminate()
        program.wait(WITHIN)
