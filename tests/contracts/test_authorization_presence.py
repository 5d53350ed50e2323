"""The matrix of rights, continued: who may ask who is there, who is shown, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.log import Log, Moved
from gateway.core.access import Principal
from gateway.core.declared import Declared
from gateway.edge.presence import user_of
from gateway.edge.process import Edge
from gateway.errors import Denied
from tests.contracts.rights_matrix import Matrix, bearer, granted, world
from tests.contracts.rights_oracle import PRINCIPALS, TOPICS, Who, allowed
from tests.gateways import Client, client
from tests.servers import eventually

#: The columns.
ASKED, COUNTED, SHOWN, JOINS, LEAVES = "presence", "presence stats", "shown", "join", "leave"


def heard(one: Client, what: str) -> set[str]:
    """The topics of which a client heard somebody come, or leave."""
    return {push["channel"] for push in one.pushes if what in push}


async def looking(
    matrix: Matrix, edge: Edge, log: Log, declared: Declared, principals: Sequence[Who], topics: Sequence[str]
) -> None:
    url = f"ws://127.0.0.1:{edge.port}/connection/websocket"
    async with AsyncExitStack() as stack:
        clients: dict[Who, Client] = {}
        for who in principals:
            clients[who] = await stack.enter_async_context(client(url, bearer(who)))
        for who, one in clients.items():
            for topic in topics:
                answer = await one.ask("subscribe", channel=topic, join_leave=True)
                assert granted(answer) == allowed(who, topic, 0)

        def watching(topic: str) -> list[Who]:
            return [who for who in principals if allowed(who, topic, 0)]

        users = {user_of(Principal(*who)): who for who in principals}
        for topic in topics:
            partition, want = declared.find(topic).partition, len(watching(topic))
            await eventually(lambda p=partition, t=topic, want=want: _as_many(log, p, t, want), within=60)
            shown = {users[user] for _, user in await log.presence.there(partition, topic)}
            for who in principals:
                matrix.cell(SHOWN, who, topic, who in shown, allowed(who, topic, 0))
        for who, one in clients.items():
            for topic in topics:
                expected = allowed(who, topic, 0)
                answer = await one.ask("presence", channel=topic)
                assert ("presence" in answer) == granted(answer)
                matrix.cell(ASKED, who, topic, granted(answer), expected)
                answer = await one.ask("presence_stats", channel=topic)
                matrix.cell(COUNTED, who, topic, granted(answer), expected)
        # Everybody hears himself come. Then the first of each topic leaves it, and the others hear that.
        await _all_heard(matrix, JOINS, clients, topics, allowed)
        first = {topic: those[0] for topic in topics if (those := watching(topic))}
        for topic, who in first.items():
            assert "unsubscribe" in await clients[who].ask("unsubscribe", channel=topic)
        await _all_heard(matrix, LEAVES, clients, topics, lambda who, t, _: allowed(who, t, 0) and first.get(t) != who)


async def _as_many(log: Log, partition: str, topic: str, count: int) -> bool:
    return len(await log.presence.there(partition, topic)) >= count


async def _all_heard(
    matrix: Matrix,
    way: str,
    clients: dict[Who, Client],
    topics: Sequence[str],
    expected: Callable[[Who, str, int], bool],
) -> None:
    for who, one in clients.items():
        want = {topic for topic in topics if expected(who, topic, 0)}
        await eventually(lambda one=one, want=want: want <= heard(one, way), within=60)
    for who, one in clients.items():
        for topic in topics:
            matrix.cell(way, who, topic, topic in heard(one, way), expected(who, topic, 0))


@pytest.mark.slow  # six thousand questions
async def test_nobody_sees_who_is_where_he_may_not_be(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_debug(False)  # it doubles the time, and nothing here is about tasks
    matrix = Matrix()
    async with world(tmp_path) as (edge, log, declared):
        await looking(matrix, edge, log, declared, PRINCIPALS, TOPICS)
    assert matrix.leaks == []
    assert matrix.refusals == []
    assert matrix.cells == 5 * len(PRINCIPALS) * len(TOPICS)


# --- broken on purpose ---

SOME: tuple[Who, ...] = (("user", "alice"), ("device", "7"), ("operator", "root"))


def no_rights(edge: Edge, patch: pytest.MonkeyPatch) -> None:
    """Presence forgets to ask for the right to read."""

    class Leaky(Declared):
        def readable(self, who: Principal, filter: str) -> Any:
            return self.meeting(filter)

    patch.setattr(edge.presence, "_declared", Leaky(edge.declared.topics))


def told_to_all(edge: Edge, patch: pytest.MonkeyPatch) -> None:
    """Joins and leaves go to every client of the edge."""

    def hear(moved: Moved) -> None:
        for one in edge._clients:
            edge.presence._watching.setdefault(moved.topic, {})[one] = None
        real(moved)

    real = edge.presence.hear
    patch.setattr(edge.readers, "_hear", hear)


def shown_before_the_right(edge: Edge, patch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a topic is shown there, also where he may not watch it."""
    real = edge.declared.readable

    def readable(who: Principal, filter: str) -> Any:
        try:
            return real(who, filter)
        except Denied:
            edge.presence.enter(edge.declared.meeting(filter), filter, f"{who}", who)
            raise

    patch.setattr(edge.declared, "readable", readable)


@pytest.mark.parametrize(
    ("broken", "columns"),
    [(no_rights, {ASKED, COUNTED}), (told_to_all, {JOINS, LEAVES}), (shown_before_the_right, {SHOWN})],
)
async def test_a_presence_that_is_broken_on_purpose_is_caught(
    broken: Callable[[Edge, pytest.MonkeyPatch], None],
    columns: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix = Matrix()
    async with world(tmp_path) as (edge, log, declared):
        broken(edge, monkeypatch)
        topics = ["o/users", "o/devices", "o/operators", "u/alice/inbox", "u/alice/public", "d/7/secret", "n/alice/own"]
        await looking(matrix, edge, log, declared, SOME, topics)
    assert matrix.ways() == columns
