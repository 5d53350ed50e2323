"""Rollups: what many readings were together, in a form that more readings can be added to in any order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from devices.readings import Reading

Level = Literal["minute", "hour"]
#: In ms.
SIZES: Final[dict[Level, int]] = {"minute": 60_000, "hour": 3_600_000}


class Rollup(msgspec.Struct, frozen=True):
    """Some values of one series."""

    count: int
    total: float
    least: float
    most: float

    def with_value(self, value: float) -> Rollup:
        return Rollup(self.count + 1, self.total + value, min(self.least, value), max(self.most, value))


class Run(msgspec.Struct, frozen=True):
    """The numbers that came of one start of a device, and how many of them had come before."""

    first: int
    last: int
    received: int
    doubled: int
    #: The newest of its times.
    ts: int

    @property
    def lost(self) -> int:
        """Numbers between the first and the last that did not come, or not yet."""
        return self.last - self.first + 1 - self.received


def rollups(found: Iterable[tuple[str, Reading]]) -> dict[tuple[str, str, int, int], Rollup]:
    """Return (device, metric, size, start) → what these readings add there."""
    made: dict[tuple[str, str, int, int], Rollup] = {}
    for device, one in found:
        for metric, value in one.values.items():
            for size in SIZES.values():
                key = (device, metric, size, one.ts // size * size)
                old = made.get(key)
                made[key] = old.with_value(value) if old else Rollup(1, value, value, value)
    return made


def latest(found: Iterable[tuple[str, Reading]]) -> dict[tuple[str, str], tuple[int, float]]:
    """Return (device, metric) → the newest time and its value, by event time."""
    made: dict[tuple[str, str], tuple[int, float]] = {}
    for device, one in found:
        for metric, value in one.values.items():
            if (device, metric) not in made or made[device, metric][0] <= one.ts:
                made[device, metric] = (one.ts, value)
    return made


def runs(came: Iterable[tuple[str, Reading]], new: Iterable[tuple[str, Reading]]) -> dict[tuple[str, str], Run]:
    """Return (device, boot) → what these readings add to it; ``new`` are those of ``came`` that count."""
    made: dict[tuple[str, str], Run] = {}
    for received, doubled, some in ((0, 1, came), (1, -1, new)):
        for device, one in some:
            if one.counted:
                old = made.get((device, one.boot)) or Run(one.seq, one.seq, 0, 0, one.ts)
                made[device, one.boot] = Run(
                    min(old.first, one.seq),
                    max(old.last, one.seq),
                    old.received + received,
                    old.doubled + doubled,
                    max(old.ts, one.ts),
                )
    return made


def level(begin: int, end: int, points: int) -> Level:
    """Return the finest level at which the time from ``begin`` to ``end`` has at most ``points`` rows, or ``hour``."""
    return next((name for name, size in SIZES.items() if (end - begin) / size <= points), "hour")
