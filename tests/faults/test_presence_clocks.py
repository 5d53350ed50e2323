"""Clocks off by an hour, of edges and of the log server: who is there is there, and who died is gone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import limits
from gateway.adapters.child import Server
from gateway.adapters.log import Change, Log
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from tests.contracts.edge_process import edge_process
from tests.contracts.places import PLACES
from tests.contracts.test_presence import LOBBY, hears, moves, sees, there
from tests.faults.clocks import Clock, library
from tests.gateways import SECRET, app_logs, client, running_edge
from tests.servers import eventually

Start = Callable[..., Server]
HOUR = 3600
#: Of a lease, between two words of an edge, and of who may come back.
LEASE, BEAT, LINGER = 10.0, 0.2, 0.4


@pytest.fixture(scope="module")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("clock"))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PRESENCE_LEASE", LEASE)
    monkeypatch.setattr(limits, "PRESENCE_BEAT", BEAT)
    monkeypatch.setattr(limits, "PRESENCE_LINGER", LINGER)


async def test_edges_an_hour_apart(valkey: Server, tmp_path: Path, clock_library: Path) -> None:
    ahead, behind = (Clock(tmp_path, clock_library, name) for name in ("ahead", "behind"))
    ahead.set_ahead(HOUR)
    behind.set_ahead(-HOUR)
    async with AsyncExitStack() as stack:
        places = await stack.enter_async_context(running_edge(valkey.url, PLACES))
        alice = await stack.enter_async_context(there(places, "alice"))
        edges = []
        for sub, clock in (("bob", ahead), ("carol", behind)):
            starting = edge_process(valkey.url, LEASE, BEAT, LINGER, environment=clock.environment)
            process, at = await stack.enter_async_context(starting)
            edges.append(process)
            good = issue(SECRET, Principal("user", sub), 8 * HOUR, time.time() - 4 * HOUR)  # at each of these hours
            one = await stack.enter_async_context(client(at, good))
            await one.ask("subscribe", channel=LOBBY)
            await sees(alice, "alice", *("bob", "carol")[: len(edges)])
        due, ask = f"{{{places.edge.declared.find(LOBBY).partition}}}:presence:due", places.log._links.own.ask

        async def leases() -> list[float]:
            names_and_ends: Any = await ask("ZRANGE", due, 0, -1, "WITHSCORES")
            return [float(end) for end in names_and_ends[1::2]]

        began = await leases()
        assert len(began) == 3
        assert max(began) <= (time.time() + LEASE) * 1000, "by the server's clock, which is right"

        async def all_told() -> bool:
            return min(await leases()) > max(began) + 3 * BEAT * 1000

        await eventually(all_told, 60)
        came = [("join", "alice"), ("join", "bob"), ("join", "carol")]
        await hears(alice, *came)
        for process in edges:
            process.kill()
        await eventually(lambda: sorted(moves(alice)[3:]) == [("leave", "bob"), ("leave", "carol")], 60)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Log]:
    log = await Log.open(url, app_logs(PLACES))
    try:
        yield log
    finally:
        await log.close()


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_the_log_servers_clock_moves_by_an_hour(
    fresh_log_server: Start, tmp_path: Path, clock_library: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr(limits, "PRESENCE_LEASE", 1.0)
    clock = Clock(tmp_path, clock_library, "server")
    with monkeypatch.context() as around:
        for name, value in clock.environment.items():
            around.setenv(name, value)
        server = fresh_log_server()
    async with opened(server.url) as log:
        await _moved(log, clock, ahead)


async def _moved(log: Log, clock: Clock, ahead: int) -> None:
    tell, who = log.presence.tell, log.presence.there
    enter, lost = Change("enter", LOBBY, "c1", "alice"), Change("lost", LOBBY, "c2", "bob")
    await tell("lobby.0", "dies", [enter])
    await tell("lobby.0", "lives", [Change("enter", LOBBY, "c2", "bob"), Change("enter", LOBBY, "c3", "carol"), lost])
    clock.set_ahead(ahead)

    async def only_carol() -> bool:
        there = await tell("lobby.0", "lives", [])
        if not there.known:  # as the edge itself would do
            await tell("lobby.0", "lives", [Change("enter", LOBBY, "c3", "carol")])
        return await who("lobby.0", LOBBY) == [("c3", "carol")]

    await eventually(only_carol)

    async def nobody() -> bool:
        return not await who("lobby.0", LOBBY)

    # And where nobody tells any more, who asks finds out.
    clock.set_ahead(0)
    await eventually(nobody)
