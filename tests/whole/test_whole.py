"""The promise: all applications at work, every process killed in turn, and nothing is lost, doubled or made up."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Final

import pytest

from tests.databases import new_database, postgres
from tests.whole.load import load
from tests.whole.stage import NAMES, SERVICES, Whole, whole

#: Who dies at one moment: of each application one or two that know nothing of each other.
ROUND: Final = (
    ("accounts.users", "ecommerce.orders", "devices.storage", "chat.rooms"),
    ("ecommerce.inventory", "ecommerce.shipping", "devices.registry", "devices.shadow"),
    ("ecommerce.payments", "ecommerce.catalog", "devices.analytics"),
    ("ecommerce.acquirer", "ecommerce.notifications", "devices.alerting"),
)
#: On PostgreSQL: an order, the stock it is of, a reading, a message.
ON_POSTGRES: Final = ("ecommerce.orders", "ecommerce.inventory", "devices.storage", "chat.rooms")

#: What would be wrong: a reading lost, a window told otherwise, an alert that ended unheard, a setting that
#: nobody wanted, a piece made up, a message gone, money taken and no mail of that end, a key forgotten.
PLANTED: Final = (
    ("devices.storage", "DELETE FROM points WHERE seq = 2"),
    ("devices.analytics", "UPDATE windows SET revision = revision + 1 WHERE start = (SELECT max(start) FROM windows)"),
    ("devices.alerting", "UPDATE alerts SET state = CASE state WHEN 'firing' THEN 'ok' ELSE 'firing' END"),
    ("ecommerce.inventory", "UPDATE stock SET on_hand = on_hand + 1 WHERE sku = 'TEA'"),
    (
        "devices.shadow",
        """UPDATE shadows SET said = CAST(replace(said, '"desired":{"n":', '"desired":{"n":1') AS BLOB)""",
    ),
    ("chat.rooms", "DELETE FROM log WHERE seq = 9"),
    ("ecommerce.orders", "UPDATE orders SET status = 'cancelled' WHERE status = 'completed'"),
    ("ecommerce.orders", "DELETE FROM keys WHERE key = (SELECT min(key) FROM keys)"),
)
#: What is said of them.
FOUND: Final = (
    "was acknowledged",
    "[2] are missing, and 0 are called lost",
    "told are the revisions",
    "stands as",
    "its shadow is not what was told last",
    "was wanted last, and taken",
    "TEA: stock is not conserved",
    "the numbers are",
    "money was captured for an order that is cancelled",
    "is cancelled', of 1",
    "is known 0 times",
    "asked again",
)


async def holders(stage: Whole) -> set[str]:
    """Who holds a partition of a service."""
    groups = (await stage.ask("GET", "/groups"))["groups"]
    return {one["holder"] for one in groups if one["group"] in SERVICES}


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_every_process_is_killed_in_turn_and_the_promise_holds(tmp_path: Path) -> None:
    assert {name for names in ROUND for name in names} == SERVICES.keys()
    async with whole(tmp_path) as stage, load(stage, 1) as everybody:
        (worker,) = await holders(stage)
        for n, names in enumerate(ROUND):
            await everybody.kill(*names)
            if n % 2:  # else the next die while those who came back catch up
                await everybody.moves()
        await everybody.kill("valkey", "edge", then="bridge")
        await everybody.moves()
        await everybody.kill("bridge", then="mosquitto")
        await everybody.joins("d-late")
        await everybody.ends()
        assert await everybody.faults() == []
        assert await holders(stage) == {worker}, "who came back was another"
        for group, statement in PLANTED:
            with sqlite3.connect(stage.url_of(group).removeprefix("sqlite:///"), timeout=60) as database:
                database.execute(statement)
            database.close()
        found = await everybody.faults()
        assert [said for said in FOUND if not any(said in fault for fault in found)] == [], found


@pytest.mark.slow
@pytest.mark.timeout(1000)
async def test_the_database_server_dies_and_the_promise_holds(tmp_path: Path) -> None:
    with postgres() as server:
        databases = {group: new_database(server, group.replace(".", "_")) for group in ON_POSTGRES}
        async with whole(tmp_path, databases) as stage, load(stage, 2) as everybody:
            await everybody.kill("ecommerce.orders", "devices.storage")
            await everybody.kill_server(server)
            await everybody.moves()
            await everybody.ends()
            assert await everybody.faults() == []


@pytest.mark.soak
async def test_whoever_dies_when_and_with_whom_the_promise_holds(tmp_path: Path) -> None:
    """Some at one moment, by dice, for SOAK_SECONDS; FAULT_SEED throws the dice of a run again."""
    seed = int(os.environ.get("FAULT_SEED") or random.randrange(2**32))
    print(f"  · FAULT_SEED={seed}")  # noqa: T201 - a soak is watched
    dice, until = random.Random(seed), time.monotonic() + float(os.environ.get("SOAK_SECONDS", "600"))
    async with whole(tmp_path) as stage, load(stage, seed) as everybody:
        while time.monotonic() < until:
            left = sorted(NAMES)
            dice.shuffle(left)
            while left and time.monotonic() < until:
                some, left = left[: (size := dice.randint(1, 4))], left[size:]
                await everybody.kill(*some)
                if dice.random() < 0.5:
                    await everybody.moves()
        await everybody.ends()
        assert await everybody.faults() == [], f"FAULT_SEED={seed}"
