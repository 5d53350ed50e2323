"""Shadows of the devices: what an operator wants of each in turn, and whether each change was kept and told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from devices.shadow.rules import Shadow, difference
from tests.whole.evidence import Told
from tests.whole.stage import Whole

#: Seconds between two wishes.
EVERY: Final = 0.3


class Wishes:
    """One operator, who says again what nobody answered."""

    def __init__(self, stage: Whole, devices: Sequence[str]) -> None:
        self._stage, self._devices = stage, devices
        #: Device → the last number that was wanted, and taken.
        self.taken: dict[str, int] = {}

    async def wants(self, stop: asyncio.Event) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            device = self._devices[n % len(self._devices)]
            await self._stage.ask("PATCH", f"/devices/shadow/{device}", {"desired": {"n": n}})
            self.taken[device] = n
            await asyncio.sleep(EVERY)


def faults(rows: Sequence[Mapping[str, Any]], log: Sequence[Told], taken: Mapping[str, int]) -> list[str]:
    """Say which shadow is not what was told of it, which version was told never or twice, and what is unanswered."""
    kept = {row["device"]: msgspec.json.decode(row["said"], type=Shadow) for row in rows if row["version"]}
    told: dict[str, list[Any]] = {device: [] for device in kept}
    deltas = dict[str, Any]()
    asked, answered = Counter[str](), Counter[str]()
    for one in log:
        _, device, *what = one.topic.split("/")
        match what:
            case ["shadow"]:
                told.setdefault(device, []).append(one.data)
            case ["shadow", "delta"]:
                deltas[device] = one.data["state"]
            case ["shadow", "update"]:
                asked[device] += 1
            case ["shadow", "update", _]:
                answered[device] += 1
    found = [f"{device}: {asked[device]} updates, {answered[device]} answers" for device in asked | answered
             if asked[device] != answered[device]]  # fmt: skip
    for device, documents in told.items():
        shadow = kept.get(device, Shadow())
        if [one["version"] for one in documents] != list(range(1, shadow.version + 1)):
            found.append(f"{device}: told are the versions {[one['version'] for one in documents]} of {shadow.version}")
        elif (documents[-1]["desired"], documents[-1]["reported"]) != (shadow.desired, shadow.reported):
            found.append(f"{device}: its shadow is not what was told last")
        if deltas.get(device, {}) != difference(shadow.desired, shadow.reported):
            found.append(f"{device}: told is the delta {deltas.get(device)}")
    for device, n in taken.items():
        if kept.get(device, Shadow()).desired.get("n") != n:
            found.append(f"{device}: {n} was wanted last, and taken")
    return found
