"""The matrix of rights: every principal at every topic by every way, against an oracle that knows nothing of ours.

`core/access` is here only to be broken.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from gateway.adapters.log import Log
from gateway.core.access import Principal, denied, may
from gateway.core.declared import Declared
from gateway.edge.process import Edge
from tests.contracts.rights_hearing import (
    BY_TICKET,
    BY_WILDCARD,
    REDEEMED,
    SSE,
    SSE_EVENTS,
    SSE_WILDCARD,
    TICKET,
    hearing,
)
from tests.contracts.rights_matrix import Matrix, bearer, granted, headers, seed, some_at_a_time, world
from tests.contracts.rights_oracle import (
    FILTERS,
    PRINCIPALS,
    TOPICS,
    Who,
    allowed,
    filter_allowed,
    owner,
)
from tests.gateways import Client, client
from tests.servers import eventually


@pytest.mark.slow  # eight thousand questions, one after the other
@pytest.mark.timeout(600)
async def test_nobody_reads_or_writes_what_no_grant_gives(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_debug(False)  # it doubles the time, and nothing here is about tasks
    matrix = Matrix()
    async with world(tmp_path) as (edge, log, declared):
        await watching(matrix, edge, log, declared)
        await asking(matrix, edge)
        await hearing(matrix, edge, log, declared, PRINCIPALS, TOPICS, FILTERS[::4], SOME)
        await writing(matrix, edge, log, declared)
    assert matrix.leaks == []
    assert matrix.refusals == []
    assert matrix.cells >= 5_000, matrix.cells


async def by_filter(matrix: Matrix, one: Client, who: Who, filters: Sequence[str]) -> None:
    for filter in filters:
        answer = await one.ask("subscribe", channel=filter)
        matrix.cell("wildcard", who, filter, granted(answer), filter_allowed(who, filter))
        for pub in answer.get("subscribe", {}).get("publications", []):
            topic = pub["tags"]["topic"]
            matrix.cell("retained by wildcard", who, topic, True, allowed(who, topic, 0))
        if "subscribe" in answer:
            await one.ask("unsubscribe", channel=filter)


async def watching(
    matrix: Matrix,
    edge: Edge,
    log: Log,
    declared: Declared,
    principals: Sequence[Who] = PRINCIPALS,
    topics: Sequence[str] = TOPICS,
    filters: Sequence[str] = FILTERS,
) -> None:
    """Live, retained and wildcard; then, by others of the same names, resume and history. Judged by delivery."""
    url = f"ws://127.0.0.1:{edge.port}/connection/websocket"
    async with AsyncExitStack() as stack:
        clients: dict[Who, Client] = {}
        joined: dict[Who, set[str]] = {}
        for who in principals:
            clients[who] = await stack.enter_async_context(client(url, bearer(who)))
        for who, one in clients.items():
            await by_filter(matrix, one, who, filters)
            joined[who] = set()
            for topic in topics:
                answer = await one.ask("subscribe", channel=topic)
                seen = bool(answer.get("subscribe", {}).get("publications"))
                expected = allowed(who, topic, 0)
                matrix.cell("subscribe", who, topic, granted(answer), expected)
                joined[who] |= {topic} if granted(answer) else set()
                retained = declared.find(topic).topic.retain
                matrix.cell("retained", who, topic, seen, expected and retained)
        await seed(log, declared, "live")
        for who, one in clients.items():
            heard = one.pushes

            def topics_of(heard: list[dict[str, Any]] = heard) -> set[str]:
                return {push["pub"]["tags"]["topic"] for push in heard if "pub" in push}

            await eventually(lambda want=joined[who], of=topics_of: want <= of(), within=30)
            for topic in topics:
                matrix.cell("live", who, topic, topic in topics_of(), allowed(who, topic, 0))
    async with AsyncExitStack() as stack:
        for who in principals:
            one = await stack.enter_async_context(client(url, bearer(who)))
            for topic in topics:
                found, expected = declared.find(topic), allowed(who, topic, 0)
                epoch = (await log.epochs(found.partition)).current
                kept = found.topic.history and not found.topic.ephemeral
                answer = await one.ask("subscribe", channel=topic, recover=True, epoch=str(epoch), offset=0)
                missed = [pub["data"] for pub in answer.get("subscribe", {}).get("publications", [])]
                matrix.cell("resume", who, topic, granted(answer), expected)
                matrix.cell("what was missed", who, topic, "live" in missed, expected and (kept or found.topic.retain))
                past = await one.ask("history", channel=topic, limit=-1)
                matrix.cell("history", who, topic, granted(past), expected)
                matrix.cell("its events", who, topic, "old" in str(past), expected and kept)


async def asking(
    matrix: Matrix, edge: Edge, principals: Sequence[Who] = PRINCIPALS, topics: Sequence[str] = TOPICS
) -> None:
    """The ways of HTTP that answer once, judged by status and by what is in the answer."""

    async def look(http: httpx.AsyncClient, who: tuple[str, str], topic: str) -> None:
        expected, path = allowed(who, topic, 0), quote(topic, safe="")
        for way, suffix in (("HTTP history", "/history"), ("last value", "")):
            answer = await http.get(f"/topics/{path}{suffix}")
            assert answer.status_code in (200, 403, 404), answer.text
            matrix.cell(way, who, topic, answer.status_code != 403, expected)
            matrix.cell("what HTTP answers", who, topic, "live" in answer.text, expected and answer.status_code == 200)
        answer = await http.get("/dead", params={"topic": topic})
        matrix.cell("dead letters", who, topic, topic in answer.text, who[0] == "operator")

    async with AsyncExitStack() as stack:
        work = []
        for who in principals:
            http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", headers=headers(who), timeout=60)
            await stack.enter_async_context(http)
            answer = await http.get("/connections")
            matrix.cell("connections", who, "/connections", "edge" in answer.text, who[0] == "operator")
            work += [look(http, who, topic) for topic in topics]
        await some_at_a_time(work)


async def writing(matrix: Matrix, edge: Edge, log: Log, declared: Declared) -> None:
    """Publishing by each door; then whose events the log holds."""
    url = f"ws://127.0.0.1:{edge.port}/connection/websocket"

    async def by_http(http: httpx.AsyncClient, who: tuple[str, str], topic: str) -> None:
        answer = await http.post(f"/topics/{topic}", json=f"http {who}")
        assert answer.status_code in (201, 403), answer.text
        matrix.cell("publish by HTTP", who, topic, answer.status_code == 201, allowed(who, topic, 1))

    async def by_websocket(one: Client, who: tuple[str, str]) -> None:
        for topic in TOPICS:
            expected = allowed(who, topic, 1)
            said = granted(await one.ask("publish", channel=topic, data=f"ws {who}"))
            matrix.cell("publish", who, topic, said, expected)
            asked = {"topic": topic, "data": f"rpc {who}"}
            said = granted(await one.ask("rpc", method="publish", data=asked))
            matrix.cell("rpc", who, topic, said, expected)

    async with AsyncExitStack() as stack:
        work: list[Awaitable[None]] = []
        for who in PRINCIPALS:
            http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", headers=headers(who), timeout=60)
            await stack.enter_async_context(http)
            one = await stack.enter_async_context(client(url, bearer(who)))
            work += [by_http(http, who, topic) for topic in TOPICS]
            work.append(by_websocket(one, who))
        await some_at_a_time(work)
    stored: dict[str, set[str]] = {topic: set() for topic in TOPICS}
    for partition in {declared.find(topic).partition for topic in TOPICS}:
        for record in await log.recent_deliveries(partition, 10_000):
            stored[record.event.topic].add(record.event.meta.producer)
    for who, topic in itertools.product(PRINCIPALS, TOPICS):
        if not declared.find(topic).topic.ephemeral:
            name = ":".join(part for part in who if part)
            matrix.cell("in the log", who, topic, name in stored[topic], allowed(who, topic, 1))


def open_doors(who: Principal, grants: Sequence[str], bound: Mapping[str, str]) -> bool:
    """Rights with a mistake that is easily made: a level that a wildcard leaves open is anybody's."""
    return may(who, grants, bound) or any("{" in grant and grant.startswith(who.kind) and not bound for grant in grants)


def name_alone(who: Principal, grants: Sequence[str], bound: Mapping[str, str]) -> bool:
    """Another one: who has the name has the right, whatever its kind."""
    return any(may(Principal(kind, who.name), grants, bound) for kind in ("user", "device") if who.name)


def user_too(who: Principal, grants: Sequence[str], bound: Mapping[str, str]) -> bool:
    """A third: a viewer is taken for a user."""
    return may(who, grants, bound) or (who.kind == "viewer" and may(Principal("user", who.name), grants, bound))


def no_denials(who: Principal, denials: Sequence[str], bound: Mapping[str, str]) -> bool:
    """And another: a deny whose level a wildcard leaves open is nobody's."""
    return denied(who, denials, bound) and not any("{" in word and not bound for word in denials)


#: Those who are taken for another by the breaks above, and what they may not read.
SOME: list[Who] = [("user", "alice"), ("viewer", "alice"), ("device", "alice")]
PLACES = ["o/users", "u/alice/inbox", "u/alice/drafts", "u/bob/inbox", "n/alice/own"]
WIDE = ["u/+/inbox", "u/alice/#", "n/+/own", "o/#"]

BY_FILTER = {"wildcard", "retained by wildcard", SSE_WILDCARD, BY_WILDCARD}
BY_TOPIC = {"subscribe", "retained", "live", "resume", "what was missed", "history", "its events"}
BY_TOPIC |= {"HTTP history", "last value", "what HTTP answers", SSE, SSE_EVENTS, TICKET, REDEEMED, BY_TICKET}


@pytest.mark.parametrize(
    ("broken", "columns"),
    [
        (open_doors, BY_FILTER),
        (no_denials, BY_FILTER - {"retained by wildcard"}),  # no last value is denied by a level's name
        (name_alone, BY_TOPIC | BY_FILTER),
        (user_too, BY_TOPIC | BY_FILTER),
    ],
)
async def test_a_gateway_that_is_broken_on_purpose_is_caught(
    broken: Callable[..., bool], columns: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"gateway.core.declared.{'denied' if broken is no_denials else 'may'}", broken)
    asyncio.get_running_loop().set_debug(False)  # as above
    matrix = Matrix()
    async with world(tmp_path) as (edge, log, declared):
        await watching(matrix, edge, log, declared, SOME, PLACES, WIDE)
        await asking(matrix, edge, SOME, PLACES)
        await hearing(matrix, edge, log, declared, SOME, PLACES, WIDE, SOME)
    assert matrix.ways() == columns


def test_the_oracle_is_one() -> None:
    """It tells apart what it must: whoever breaks it does not break the matrix in silence."""
    alice, seven = ("user", "alice"), ("device", "7")
    assert allowed(alice, "u/alice/inbox", 0)
    assert not allowed(alice, "u/bob/inbox", 0)
    assert not allowed(("operator", "alice"), "u/alice/inbox", 0)
    assert not allowed(("viewer", "alice"), "u/alice/inbox", 0)
    assert [allowed((kind, "eve"), "o/viewers", 0) for kind in ("viewer", "user", "operator")] == [True, False, False]
    assert allowed(seven, "d/7/telemetry", 1)
    assert not allowed(("user", "7"), "d/7/telemetry", 1)
    assert owner("t/alice/own") == "t/{user}/own"
    assert owner("t/alice/x") == "t/#"
    assert not filter_allowed(alice, "u/+/inbox")
    assert filter_allowed(alice, "u/+/public")
    bob = ("user", "bob")
    assert allowed(alice, "n/x", 0)
    assert not allowed(bob, "n/x", 0)
    assert not allowed(bob, "n/open", 0)  # granted there, denied above
    assert not allowed(alice, "n/alice/own", 0)
    assert allowed(alice, "n/bob/own", 0)
    assert not filter_allowed(alice, "n/+/own")
    assert not allowed(("anonymous", ""), "n/alice/8", 1)
    assert not filter_allowed(("operator", "root"), "#")
    reads = sum(allowed(who, topic, 0) for who in PRINCIPALS for topic in TOPICS)
    assert 0.1 < reads / len(PRINCIPALS) / len(TOPICS) < 0.9
