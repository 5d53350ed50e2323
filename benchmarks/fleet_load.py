"""A fleet that says all it has as fast as it is acknowledged: ``python -m benchmarks.fleet_load URL FILE READINGS``."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from devices.radio import Plan, run
from devices.simulation import Values

#: Readings for which the temperature is high, and then low.
HALF = 10
#: Seconds between two readings: no pause, and yet the devices take turns.
_EVERY = 1e-6


class Told(msgspec.Struct, frozen=True):
    """What became of it, and by the monotonic clock when the first reading was made."""

    began: float
    sent: int
    acknowledged: int


def climate(dice: random.Random) -> Iterator[Values]:
    """Three values a reading. The temperature passes 25 every `HALF` readings, and a whole turn ends high."""
    n = 0
    while True:
        high = n // HALF % 2
        yield {
            "temp": round(20 + 10 * high + dice.random(), 2),
            "humidity": round(50 + dice.gauss(0, 2), 1),
            "pressure": round(1013 + dice.gauss(0, 3), 1),
        }
        n += 1


def main(url: str, file: str, readings: int) -> None:
    began: list[float] = []

    def first(dice: random.Random) -> Iterator[Values]:
        began.append(time.monotonic())
        yield from climate(dice)

    at = urlsplit(url)
    accounts = msgspec.json.decode(Path(file).read_bytes(), type=dict[str, str])
    # All are due at once: paho keeps them, and has 20 of a device under way until the broker acknowledges one.
    tally = run(at.hostname or "", at.port or 0, accounts, [first], Plan(readings, _EVERY))
    told = Told(min(began), tally.sent, tally.acknowledged)
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
