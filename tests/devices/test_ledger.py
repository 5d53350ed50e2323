"""The checker for readings, and the faults that it must catch: planted in what storage keeps and alerting told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from devices.alerting.rules import Rule
from devices.app import app
from devices.events import Alert
from tests.databases import KINDS, NewDatabase
from tests.devices.fleet import HOUR, WITHIN, open_fleet
from tests.devices.ledger import Kept, Ledger, Said, alert_faults, faults, read

RULES = {
    "hot": Rule("above", devices="pump-*", metric="temp", threshold=30.0, clear=25.0, lasting=60.0),
    "cold": Rule("below", devices="pump-1", metric="temp", threshold=5.0),
    "other": Rule("above", devices="oven", metric="temp", threshold=0.0),
    "quiet": Rule("silent", after=3600.0),
}


def temperatures() -> Ledger:
    """Two devices: gaps, a double, late readings, a batch, a second start, one message without an acknowledgement."""
    ledger = Ledger()
    for device in ("pump-1", "pump-2"):
        for n in range(40):
            value = (40.0, 28.0, 12.0, 2.0)[n // 5 % 4] + n / 8
            message = ledger.sends(device, *[Said("1", n, HOUR + n * 20_000, {"temp": value, "rpm": n})] * (n % 7 != 6))
            ledger.acknowledged(message)
            if n % 10 == 9:
                ledger.acknowledged(ledger.sends(device, *message.readings))
        late = [Said("2", n, HOUR - n * 1000, {"temp": 99.0}) for n in (1, 3)]
        ledger.acknowledged(ledger.sends(device, *late))
        ledger.sends(device, Said("2", 9, HOUR + 900_000, {"temp": 99.0}))
    ledger.messages = [message for message in ledger.messages if message.readings]
    return ledger


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_of_a_real_fleet_it_finds_nothing(tmp_path: Any, kind: str) -> None:
    ledger = temperatures()
    with KINDS[kind](tmp_path) as new:
        kept, told = await _ran(new, ledger)
    assert len(kept.points) > 100
    assert faults(ledger, kept) == []
    assert {(one.rule, one.what) for one in told} == {(rule, what) for rule in ("hot", "cold") for what in WHATS}
    assert alert_faults(ledger, kept, RULES, told) == []


WHATS = ("firing", "resolved")


async def _ran(new: NewDatabase, ledger: Ledger) -> tuple[Kept, list[Alert]]:
    urls = {f"devices.{one.name}": new(f"devices_{one.name}") for one in app.services}
    async with open_fleet(urls) as fleet:
        for name, rule in RULES.items():
            await fleet.done("PUT", f"/devices/alerting/rules/{name}", msgspec.to_builtins(rule))
        for message in ledger.messages[:-1]:
            said = [{"boot": one.boot, "seq": one.seq, "ts": one.ts, "m": one.values} for one in message.readings]
            await fleet.gateway.publish(f"devices/{message.device}/telemetry", said if len(said) > 1 else said[0])
        await fleet.gateway.at_rest(within=WITHIN)
        events = {one.id: one for one in await fleet.gateway.events("devices/+/alerts/+")}
        return await read(urls["devices.storage"]), [one.json(Alert) for one in events.values()]


@pytest.fixture(scope="module")
def right() -> tuple[Ledger, Kept, list[Alert]]:
    """What storage would keep, and alerting tell, made by hand."""
    ledger = Ledger()
    ledger.acknowledged(ledger.sends("pump-1", Said("1", 1, 60_000, {"temp": 40.0})))
    ledger.acknowledged(
        ledger.sends("pump-1", Said("1", 2, 120_000, {"temp": 40.0}), Said("1", 4, 130_000, {"temp": 3}))
    )
    ledger.sends("pump-1", Said("1", 5, 140_000, {"temp": 9.0}))
    of: dict[str, Any] = {"device": "pump-1", "metric": "temp"}
    some = ((60_000, 1, 40.0), (120_000, 2, 40.0), (130_000, 4, 3.0))
    rollups = (
        (60_000, 60_000, 1, 40.0, 40.0, 40.0),
        (60_000, 120_000, 2, 43.0, 3.0, 40.0),
        (3_600_000, 0, 3, 83.0, 3.0, 40.0),
    )
    names = ("size", "start", "count", "total", "least", "most")
    kept = Kept(
        [{**of, "boot": "1", "ts": ts, "seq": seq, "value": value} for ts, seq, value in some],
        [{**of, **dict(zip(names, one, strict=True))} for one in rollups],
        [{**of, "ts": 130_000, "value": 3.0}],
        [{"device": "pump-1", "boot": "1", "first": 1, "last": 4, "received": 3, "doubled": 0, "ts": 130_000}],
    )
    told = [
        Alert("hot", "pump-1", "firing", "", 120_000, 0, 40.0),
        Alert("hot", "pump-1", "resolved", "", 130_000, 0, 3.0),
        Alert("cold", "pump-1", "firing", "", 130_000, 0, 3.0),
        Alert("quiet", "pump-1", "firing", "", 1, 2),
        Alert("quiet", "pump-1", "resolved", "", 3, 4),
    ]
    return ledger, kept, told


def test_of_what_is_right_it_finds_nothing(right: tuple[Ledger, Kept, list[Alert]]) -> None:
    ledger, kept, told = right
    assert faults(ledger, kept) == []
    assert alert_faults(ledger, kept, RULES, told) == []


def test_what_was_not_acknowledged_may_be_there(right: tuple[Ledger, Kept, list[Alert]]) -> None:
    ledger, kept, _ = copy.deepcopy(right)
    kept.points.append({**kept.points[0], "ts": 140_000, "seq": 5, "value": 9.0})
    assert not [one for one in faults(ledger, kept) if one.startswith(("lost", "made up", "doubled", "changed"))]


PLANTED: dict[str, Callable[[Kept], object]] = {
    "lost: ('pump-1', '1', 2": lambda kept: kept.points.pop(1),
    "lost: ('pump-1', '1', 4": lambda kept: kept.points.pop(),
    "doubled: ('pump-1', '1', 1": lambda kept: kept.points.append(dict(kept.points[0])),
    "doubled: ('pump-1', '1', 2": lambda kept: kept.points.append({**kept.points[1], "ts": 121_000}),
    "made up: ('pump-1', '1', 3": lambda kept: kept.points.append({**kept.points[1], "seq": 3}),
    "made up: ('pump-2', '1', 1": lambda kept: kept.points[0].update(device="pump-2"),
    "changed: ('pump-1', '1', 1": lambda kept: kept.points[0].update(value=40.1),
    "changed: ('pump-1', '1', 4": lambda kept: kept.points[2].update(ts=130_001),
    "rollup ('pump-1', 'temp', 3600000, 0): {": lambda kept: kept.rollups[2].update(count=4),
    "rollup ('pump-1', 'temp', 60000, 120000): {": lambda kept: kept.rollups[1].update(total=83.0),
    "rollup ('pump-1', 'temp', 60000, 60000): {": lambda kept: kept.rollups[0].update(least=3.0),
    "rollup ('pump-1', 'temp', 60000, 60000): 0 rows": lambda kept: kept.rollups.pop(0),
    "rollup ('pump-1', 'temp', 60000, 60000): 2 rows": lambda kept: kept.rollups.append(dict(kept.rollups[0])),
    "rollup ('pump-1', 'temp', 60000, 0): 1 rows": lambda kept: kept.rollups.append({**kept.rollups[0], "start": 0}),
    "last value ('pump-1', 'temp'): None": lambda kept: kept.latest.pop(),
    "last value ('pump-1', 'temp'): (120000": lambda kept: kept.latest[0].update(ts=120_000, value=40.0),
    "last value ('pump-1', 'temp'): (130000, 40": lambda kept: kept.latest[0].update(value=40.0),
    "run ('pump-1', '1'): None": lambda kept: kept.runs.pop(),
    "run ('pump-1', '2'): {": lambda kept: kept.runs.append({**kept.runs[0], "boot": "2"}),
    "run ('pump-1', '1'): {": lambda kept: kept.runs[0].update(received=4),
    "leave 1 gaps from 1 to 4": lambda kept: kept.runs[0].update(last=3),
}


@pytest.mark.parametrize("said", PLANTED)
def test_it_catches_a_fault_in_what_is_kept(right: tuple[Ledger, Kept, list[Alert]], said: str) -> None:
    ledger, kept, _ = copy.deepcopy(right)
    PLANTED[said](kept)
    assert [one for one in faults(ledger, kept) if said in one]


FALSE: dict[str, Callable[[list[Alert]], object]] = {
    "never told": lambda told: told.pop(0),
    "without end": lambda told: told.pop(1),
    "twice": lambda told: told.insert(1, told[0]),
    "swapped": lambda told: told.insert(0, told.pop(1)),
    "at another time": lambda told: told.__setitem__(0, Alert("hot", "pump-1", "firing", "", 60_000, 0, 40.0)),
    "of another value": lambda told: told.__setitem__(2, Alert("cold", "pump-1", "firing", "", 130_000, 0, 4.0)),
    "of another device": lambda told: told.append(Alert("hot", "pump-9", "firing", "", 1, 0, 40.0)),
    "of a device that it is not about": lambda told: told.append(Alert("other", "pump-1", "firing", "", 1, 0, 40.0)),
    "of no rule": lambda told: told.append(Alert("none", "pump-1", "firing", "", 1, 0, 40.0)),
    "silent twice": lambda told: told.extend([told[3], told[3]]),
    "an end without a beginning": lambda told: told.pop(3),
}


@pytest.mark.parametrize("fault", FALSE)
def test_it_catches_a_false_alert(right: tuple[Ledger, Kept, list[Alert]], fault: str) -> None:
    ledger, kept, told = copy.deepcopy(right)
    FALSE[fault](told)
    assert len(alert_faults(ledger, kept, RULES, told)) >= 1
