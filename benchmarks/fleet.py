"""The fleet: readings of many devices stored, windowed and evaluated, by all services as real processes on SQLite."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
import msgspec

from benchmarks import machine, up
from benchmarks.fleet_load import HALF, Told
from benchmarks.results import Row, Section
from gateway.adapters.log import GroupState
from gateway.errors import ServerMissing

_METHOD = (
    "`gateway up` with devices: log server, Mosquitto, bridge, edge, and a worker of each of five services, each with "
    "a SQLite file (WAL, `synchronous=FULL`), on both cores; {devices} devices, each an MQTT connection of one process "
    "on one of them, say {readings} readings of {values} values each, QoS 1, 20 of a device under way until "
    "acknowledged. One rule is about each device; the value passes its threshold every {half} readings. From the first "
    "reading to when all are in the log, and to when a service's group has no lag and nothing parked; the registry "
    "hears the readings as well. The run fails unless every value is stored and in a window, each device's alert is of "
    "its last reading, and there is no dead letter. `sqlite3`: the rows that storage keeps of the values, inserted in "
    "their order into an equal table of a file of its own (WAL, FULL, a commit per {batch} readings), by one process "
    "while nothing else runs: the floor of storing, without a log, other services, a look whether a reading came "
    "before, rollups, last values and counts of gaps."
)
_VALUES: Final = 3
#: What a service does with values, and its group.
_DOES: Final = {"stored": "devices.storage", "windowed": "devices.analytics", "evaluated": "devices.alerting"}
_RULE: Final = {"kind": "above", "devices": "*", "metric": "temp", "threshold": 25}
#: What another platform's makers measured with PostgreSQL on four cores: 1,111 messages of three values a second.
_GOAL: Final = "at least 3,333/s"
#: Readings of one commit of the floor: as many as of one call of a handler.
_BATCH: Final = 100
_POINTS: Final = """\
CREATE TABLE points (
    device VARCHAR(64), metric VARCHAR(64), ts BIGINT, boot VARCHAR(160), seq BIGINT, value FLOAT NOT NULL,
    PRIMARY KEY (device, metric, ts, boot, seq)
) WITHOUT ROWID"""
#: An alert that is of the last reading and says what that was.
_JUDGED: Final = """\
SELECT count(*) FROM alerts JOIN (SELECT device AS d, max(ts) AS last FROM stored.points GROUP BY d)
ON device = d AND at = last WHERE state = 'firing'"""


class Load(msgspec.Struct, frozen=True):
    """How much is said; of all messages of a round the broker may have to keep each (`max_queued_messages`)."""

    devices: int
    readings: int
    rounds: int

    @property
    def messages(self) -> int:
        """Of one round: also each device's birth, its settings and its end."""
        return self.devices * (self.readings + 3)

    @property
    def values(self) -> int:
        return self.devices * self.readings * _VALUES


class Flow(msgspec.Struct, frozen=True):
    """One repetition: messages per second into the log, and values per second, by what is done with them."""

    logged: float
    values: dict[str, float]


class _Standing(msgspec.Struct, frozen=True):
    groups: Sequence[GroupState]


class _Dead(msgspec.Struct, frozen=True):
    letters: Sequence[object]


def _flow(on: up.Up, http: httpx.Client, accounts: Path, load: Load) -> Flow:
    bridge = on.running.health["bridge"]
    wanted = up.metric(http, bridge, "gateway_mqtt_appended_total") + load.messages
    argv = [sys.executable, "-m", "benchmarks.fleet_load", on.running.mqtt, str(accounts), str(load.readings)]
    logged, rests = 0.0, dict[str, float]()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        machine.pin(child.pid, machine.GENERATOR_CORE)

        def done() -> bool:
            nonlocal logged
            if not logged and up.metric(http, bridge, "gateway_mqtt_appended_total") >= wanted:
                logged = time.monotonic()
            if logged:
                _note(http, rests)
            return len(rests) == len(_DOES)

        try:
            up.until(done, lambda: child.poll() in (None, 0), lambda: f"it is {rests} of {list(_DOES)}")
            out, _ = child.communicate(timeout=up.WITHIN)
        except BaseException:
            child.kill()
            raise
    told = msgspec.json.decode(out, type=Told)
    assert told.acknowledged == told.sent == load.messages, told
    lasted = {what: rests[what] - told.began for what in _DOES}
    return Flow(load.messages / (logged - told.began), {what: load.values / took for what, took in lasted.items()})


def _note(http: httpx.Client, rests: dict[str, float]) -> None:
    """Note which groups have handled all that there is, by now."""
    said = http.get("/groups").raise_for_status()
    now, found = time.monotonic(), msgspec.json.decode(said.content, type=_Standing).groups
    for what, group in _DOES.items():
        mine = [one for one in found if one.group == group]
        if mine and not any(one.lag or one.parked for one in mine):
            rests.setdefault(what, now)


def _measured(folder: Path, load: Load) -> list[Flow]:
    names = [f"sim-{n:04d}" for n in range(load.devices)]
    accounts = folder / "accounts.json"
    words = dict.fromkeys(names, "a device of the benchmarks")
    accounts.write_bytes(msgspec.json.encode(words))
    with up.gateway(folder, ["devices"], up.BOTH, devices=words) as on, on.http() as http:
        if on.running.broker != "mosquitto":
            raise ServerMissing("mosquitto", "apt install mosquitto")
        http.put("/devices/alerting/rules/hot", json=_RULE).raise_for_status()
        flows = [_flow(on, http, accounts, load) for _ in range(load.rounds)]
        letters = msgspec.json.decode(http.get("/dead").raise_for_status().content, type=_Dead).letters
        assert not letters, letters[:3]
    return flows


def lost(data: Path, load: Load) -> Mapping[str, int]:
    """Return how much of everything that was said is not where it should be; negative: there is too much."""
    values = load.values * load.rounds

    def asked(service: str, query: str) -> int:
        with closing(sqlite3.connect(data / f"devices.{service}.db")) as db:
            db.execute("ATTACH ? AS stored", (str(data / "devices.storage.db"),))
            return int(db.execute(query).fetchone()[0] or 0)

    return {
        "stored": values - asked("storage", "SELECT count(*) FROM points"),
        "windowed": values - asked("analytics", "SELECT sum(count) FROM windows"),
        "evaluated": load.devices - asked("alerting", _JUDGED),
    }


def floor(data: Path, folder: Path, rounds: int) -> list[float]:
    """Return values per second of `sqlite3` alone, with the rows of storage."""
    with closing(sqlite3.connect(data / "devices.storage.db")) as db:
        rows = db.execute("SELECT device, metric, ts, boot, seq, value FROM points ORDER BY ts, device, seq").fetchall()
    many, rates = _BATCH * _VALUES, list[float]()
    for turn in range(rounds):
        with closing(sqlite3.connect(folder / f"floor-{turn}.db", isolation_level=None)) as db:
            for line in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _POINTS):
                db.execute(line)
            began = time.monotonic()
            for first in range(0, len(rows), many):
                db.execute("BEGIN IMMEDIATE")
                db.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?)", rows[first : first + many])
                db.execute("COMMIT")
            rates.append(len(rows) / (time.monotonic() - began))
    return rates


def run(folder: Path, quick: bool) -> Section:
    load = Load(10, 2 * HALF, 1) if quick else Load(100, 10 * HALF, 3)
    here = folder / "fleet"
    here.mkdir()
    flows = _measured(here, load)
    missing = lost(here / "data", load)
    assert not any(missing.values()), f"lost: {missing}"
    floors = floor(here / "data", here, load.rounds)
    slowest = tuple(min(flow.values.values()) for flow in flows)
    rows = (
        Row("broker → log", "messages/s", tuple(flow.logged for flow in flows)),
        Row("stored", "values/s", tuple(flow.values["stored"] for flow in flows), "`sqlite3` alone", tuple(floors)),
        Row("windowed", "values/s", tuple(flow.values["windowed"] for flow in flows)),
        Row("evaluated", "values/s", tuple(flow.values["evaluated"] for flow in flows)),
        Row("all three, until the last has no lag", "values/s", slowest, goal=_GOAL),
    )
    method = _METHOD.format(**msgspec.structs.asdict(load), values=_VALUES, half=HALF, batch=_BATCH)
    return Section("Fleet", method, rows)
