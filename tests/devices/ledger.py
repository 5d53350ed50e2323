"""The checker for readings: what devices were acknowledged, against what storage keeps and alerting told.

    ledger = Ledger()
    message = ledger.sends("pump-1", Said("12", 7, ts, {"temp": 21.5}))     # before each PUBLISH, in a device's order
    ledger.acknowledged(message)                                            # after its PUBACK
    kept = await read("sqlite:////…/devices.storage.db")                    # or postgresql://…
    assert faults(ledger, kept) == []
    assert alert_faults(ledger, kept, {"hot": Rule(…)}, told) == []         # told: every `devices.events.Alert`
    assert alert_faults(ledger, kept, rules, told, {"pump-2": heard}) == [] # who stays away, and when it was heard last

A message that was sent and never acknowledged is a third outcome: it may be there. ``faults`` says what is lost,
doubled, changed or made up; which rollups, last values and counts of gaps are not what the stored readings make.
``alert_faults`` walks the stored readings in the order in which they were sent, by rules that were there before the
first of them: which alerts should have begun and ended, and which were told. Silence has no reading: of it, that
beginnings and ends take turns; where ``away`` is given, that those devices fired once and all others never. Ask both
at rest. One fault is one line; none is [].
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from devices.alerting.rules import Rule
from devices.events import ALL, Alert
from devices.storage.rollup import SIZES
from devices.storage.tables import LATEST, POINTS, ROLLUPS, RUNS


class Said(msgspec.Struct, frozen=True):
    """A reading, as a device names it. Times in ms."""

    boot: str
    seq: int
    ts: int
    values: Mapping[str, float]


class Message(msgspec.Struct):
    """One PUBLISH; several readings where it is a batch."""

    device: str
    readings: tuple[Said, ...]
    acknowledged: bool = False


class Ledger:
    """Every message that a device sent, in its order; the same reading may be in several."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def sends(self, device: str, *readings: Said) -> Message:
        self.messages.append(Message(device, readings))
        return self.messages[-1]

    def acknowledged(self, message: Message) -> None:
        message.acknowledged = True


Row = dict[str, Any]


class Kept(msgspec.Struct, frozen=True):
    """Rows of storage, as they stand: see `devices.storage.tables`."""

    points: list[Row]
    rollups: list[Row]
    latest: list[Row]
    runs: list[Row]


async def read(url: str) -> Kept:
    """Read the database of ``devices.storage``, of whichever process: ``sqlite:///FILE`` or ``postgresql://…``."""
    if url.startswith("sqlite"):
        return await asyncio.to_thread(_sqlite, url)
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1))
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_kept)
    finally:
        await engine.dispose()


def _sqlite(url: str) -> Kept:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return _kept(connection)
    finally:
        engine.dispose()


def _kept(connection: Connection) -> Kept:
    def rows(table: Table) -> list[Row]:
        return [dict(row._mapping) for row in connection.execute(table.select())]

    return Kept(rows(POINTS), rows(ROLLUPS), rows(LATEST), rows(RUNS))


def faults(ledger: Ledger, kept: Kept) -> list[str]:
    """Say what is wrong with what storage keeps."""
    return [*_points(ledger, kept), *_rollups(kept), *_latest(kept), *_runs(kept)]


def _points(ledger: Ledger, kept: Kept) -> Iterator[str]:
    there = Counter((p["device"], p["boot"], p["seq"], p["metric"], p["ts"], p["value"]) for p in kept.points)
    named: dict[tuple[Any, ...], set[tuple[int, float]]] = defaultdict(set)
    for device, boot, seq, metric, ts, value in there:
        named[device, boot, seq, metric].add((ts, value))
    for key, found in named.items():
        if len(found) > 1 or max(there[(*key, *one)] for one in found) > 1:
            yield f"doubled: {key} is {sorted(found)}"
    could: dict[tuple[Any, ...], set[tuple[int, float]]] = defaultdict(set)
    for message in ledger.messages:
        for one in message.readings:
            for metric, value in one.values.items():
                could[message.device, one.boot, one.seq, metric].add((one.ts, float(value)))
    for key, found in named.items():
        # What a device did not name by boot and seq is named by its event.
        if not key[1].startswith("@") and not found <= could[key]:
            yield f"{'changed' if could[key] else 'made up'}: {key} is {sorted(found)}, sent {sorted(could[key])}"
    must = {
        (message.device, one.boot, one.seq, metric)
        for message in ledger.messages
        if message.acknowledged
        for one in message.readings
        for metric in one.values
    }
    yield from (f"lost: {key} was acknowledged" for key in sorted(must - set(named)))


def _rollups(kept: Kept) -> Iterator[str]:
    values: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for point in kept.points:
        for size in SIZES.values():
            values[point["device"], point["metric"], size, point["ts"] - point["ts"] % size].append(point["value"])
    found = Counter((r["device"], r["metric"], r["size"], r["start"]) for r in kept.rollups)
    for key in values.keys() | found.keys():
        if found[key] != (key in values):
            yield f"rollup {key}: {found[key]} rows for {len(values.get(key, ()))} readings"
    for row in kept.rollups:
        key = (row["device"], row["metric"], row["size"], row["start"])
        if some := values.get(key):
            right = (len(some), min(some), max(some)) == (row["count"], row["least"], row["most"])
            if not right or not math.isclose(math.fsum(some), row["total"], rel_tol=1e-9, abs_tol=1e-6):
                yield f"rollup {key}: {row} is not what {len(some)} readings make"


def _latest(kept: Kept) -> Iterator[str]:
    newest: dict[tuple[str, str], tuple[int, set[float]]] = {}
    for point in kept.points:
        key, ts = (point["device"], point["metric"]), point["ts"]
        if key not in newest or newest[key][0] < ts:
            newest[key] = (ts, set())
        if newest[key][0] == ts:
            newest[key][1].add(point["value"])
    told = {(row["device"], row["metric"]): (row["ts"], row["value"]) for row in kept.latest}
    for key in newest.keys() | told.keys():
        at, some = newest.get(key, (0, set()))
        if key not in told or told[key][0] != at or told[key][1] not in some:
            yield f"last value {key}: {told.get(key)}, where the readings end with {at}: {some}"


def _runs(kept: Kept) -> Iterator[str]:
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for point in kept.points:
        if not point["boot"].startswith("@"):
            numbers[point["device"], point["boot"]].add(point["seq"])
    told = {(row["device"], row["boot"]): row for row in kept.runs}
    for key in numbers.keys() | told.keys():
        some, row = numbers.get(key, set()), told.get(key)
        if row is None or not some:
            yield f"run {key}: {row} for {len(some)} readings"
            continue
        if (row["first"], row["last"], row["received"]) != (min(some), max(some), len(some)):
            gaps = max(some) - min(some) + 1 - len(some)
            yield f"run {key}: {row}, where {len(some)} readings leave {gaps} gaps from {min(some)} to {max(some)}"


def alert_faults(
    ledger: Ledger,
    kept: Kept,
    rules: Mapping[str, Rule],
    told: Iterable[Alert],
    away: Mapping[str, int] | None = None,
) -> list[str]:
    """Say what is wrong with what alerting told: each transition once, in a device's order.

    ``away``: device → when it was heard last, in ms by our clock; of all that do not come back, by the end of a run in
    which nobody else was silent for long.
    """
    heard: dict[tuple[str, str], list[Alert]] = defaultdict(list)
    for alert in told:
        heard[alert.rule, alert.device].append(alert)
    found = [f"alert by {rule!r}, which is no rule" for rule, _ in heard if rule not in rules]
    devices = {message.device for message in ledger.messages}
    for name, rule in rules.items():
        if rule.kind == "silent":
            for key, some in heard.items():
                whats = [one.what for one in some]
                if key[0] == name and whats != [("firing", "resolved")[n % 2] for n in range(len(whats))]:
                    found.append(f"alert {key}: {whats} do not take turns")
            found += _silence(name, rule, heard, away) if away is not None else []
            continue
        for device in sorted(devices | {device for one, device in heard if one == name}):
            right = _walked(ledger, kept, rule, device)
            # Ends that no reading makes (a rule or a device that is gone) are not of the readings.
            said = [(one.what, one.occurred, one.value) for one in heard[name, device] if not one.reason]
            if said != right:
                found.append(f"alert {(name, device)}: told {said}, where the readings make {right}")
    return found


def _silence(
    name: str, rule: Rule, heard: Mapping[tuple[str, str], list[Alert]], away: Mapping[str, int]
) -> Iterator[str]:
    # Of the fleet as one, only that beginnings and ends take turns: nothing comes while the broker is away.
    for device in sorted(away.keys() | {device for one, device in heard if one == name and device != ALL}):
        said = [(one.what, one.occurred) for one in heard.get((name, device), ())]
        due = away.get(device, 0) + (rule.after or 0) * 1000
        # Silence is told when a look finds it: never before.
        if [what for what, _ in said] != ["firing"] * (device in away) or any(at < due for _, at in said):
            yield f"alert {(name, device)}: told {said}, " + (f"due at {due:.0f}" * (device in away) or "never silent")


def _walked(ledger: Ledger, kept: Kept, rule: Rule, device: str) -> list[tuple[str, int, float]]:
    """Walk a rule by brute force, in the words of the user's page and not of `devices.alerting.rules`."""
    if not (device.startswith(rule.devices[:-1]) if rule.devices[-1:] == "*" else device == rule.devices):
        return []
    here = {(p["boot"], p["seq"]) for p in kept.points if p["device"] == device}
    sign = 1 if rule.kind == "above" else -1
    limit = sign * (rule.threshold or 0.0)
    clear = limit if rule.clear is None else sign * rule.clear
    newest, above_since, fires = -math.inf, None, False
    made: list[tuple[str, int, float]] = []
    for message in ledger.messages:
        if message.device != device:
            continue
        for one in sorted(message.readings, key=lambda reading: reading.ts):
            if (one.boot, one.seq) not in here or rule.metric not in one.values or one.ts < newest:
                continue
            newest, value = one.ts, sign * one.values[rule.metric]
            if value <= limit:
                above_since = None
            elif above_since is None:
                above_since = one.ts
            if not fires and above_since is not None and one.ts - above_since >= rule.lasting * 1000:
                fires = True
                made.append(("firing", one.ts, float(one.values[rule.metric])))
            elif fires and value <= clear:
                fires = False
                made.append(("resolved", one.ts, float(one.values[rule.metric])))
    return made
