"""The matrix of rights, continued: the server API, what servers give, and tokens of single subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.adapters.http_api import REQUESTS
from gateway.adapters.log import Log
from gateway.core.access import Principal
from gateway.core.declared import Declared
from gateway.edge import api
from gateway.edge.presence import user_of
from gateway.edge.process import Edge
from tests.contracts.rights_matrix import Matrix, bearer, granted, headers, seed, some_at_a_time, world
from tests.contracts.rights_oracle import PRINCIPALS, TOPICS, Who, allowed, given, opened
from tests.gateways import Client, client
from tests.servers import eventually

PUBLISH, BROADCAST, HISTORY, PRESENCE, STATS = (
    f"API {name}" for name in ("publish", "broadcast", "history", "presence", "presence_stats")
)
DOOR, GIVE, GIVEN, TOKEN = "the API's door", "API subscribe", "what a server gave", "subscription token"
CHANNELS = "API channels"
#: Whom servers subscribe.
TARGETS: tuple[Who, ...] = (("user", "alice"), ("user", "bob"), ("device", "7"))
SERVERS = ("service", "operator")


async def serving(matrix: Matrix, edge: Edge, principals: Sequence[Who], topics: Sequence[str]) -> None:
    """Every method of the server API by everybody, judged by status and answer."""

    async def ask(http: httpx.AsyncClient, method: str, **body: Any) -> tuple[bool, dict[str, Any]]:
        answer = await http.post(f"/api/{method}", json=body)
        assert answer.status_code in (200, 401, 403), answer.text
        if answer.status_code != 200:
            return False, {}
        said = answer.json()
        return granted(said), said

    async def door(http: httpx.AsyncClient, who: Who) -> None:
        for method in REQUESTS:
            answer = await http.post(f"/api/{method}", json={})
            matrix.cell(DOOR, who, method, answer.status_code == 200, who[0] in SERVERS)

    async def look(http: httpx.AsyncClient, who: Who, topic: str) -> None:
        server = who[0] in SERVERS
        reads, writes = server and allowed(who, topic, 0), server and allowed(who, topic, 1)
        matrix.cell(PUBLISH, who, topic, (await ask(http, "publish", channel=topic, data=f"api {who}"))[0], writes)
        said, answer = await ask(http, "broadcast", channels=[topic], data=f"all {who}")
        each = answer["result"]["responses"] if said else [{"error": {"code": 103}}]
        matrix.cell(BROADCAST, who, topic, all(map(granted, each)), writes)
        said, answer = await ask(http, "history", channel=topic, limit=-1)
        assert said or "old" not in str(answer)
        matrix.cell(HISTORY, who, topic, said, reads)
        matrix.cell(PRESENCE, who, topic, (await ask(http, "presence", channel=topic))[0], reads)
        matrix.cell(STATS, who, topic, (await ask(http, "presence_stats", channel=topic))[0], reads)

    async with AsyncExitStack() as stack:
        for who in principals:
            http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", headers=headers(who), timeout=60)
            await stack.enter_async_context(http)
            await door(http, who)
            await some_at_a_time(look(http, who, topic) for topic in topics)


async def giving(
    matrix: Matrix, edge: Edge, log: Log, declared: Declared, servers: Sequence[Who], topics: Sequence[str]
) -> None:
    """Each server subscribes each target to everything; judged by the answer, and by what then arrives."""
    url = f"ws://127.0.0.1:{edge.port}/connection/websocket"
    for server in servers:
        async with AsyncExitStack() as stack:
            targets = {who: await stack.enter_async_context(client(url, bearer(who))) for who in TARGETS}
            http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", headers=headers(server), timeout=60)
            await stack.enter_async_context(http)
            for who in targets:
                for topic in topics:
                    body = {"user": user_of(Principal(*who)), "channel": topic}
                    answer = (await http.post("/api/subscribe", json=body)).json()
                    told = "result" in answer
                    # Who may read it hears no more than that the edges were told: a deny of the target is theirs.
                    may = allowed(server, topic, 0) or allowed(who, topic, 0)
                    matrix.cell(GIVE, server, f"{topic} to {who}", told, server[0] in SERVERS and may)
            for who, one in targets.items():
                want = {topic for topic in topics if given(server, who, topic)}
                await eventually(lambda one=one, want=want: want <= channels(one, "subscribe"), within=60)
            # Of channels that somebody has, a server hears of those that it may read itself.
            answer = (await http.post("/api/channels", json={})).json()
            listed = answer["result"]["channels"] if "result" in answer else {}
            for topic in {topic for one in targets.values() for topic in channels(one, "subscribe")}:
                may = server[0] in SERVERS and allowed(server, topic, 0)
                matrix.cell(CHANNELS, server, topic, topic in listed, may)
            await seed(log, declared, f"given by {server}")
            for who, one in targets.items():
                want = {topic for topic in topics if given(server, who, topic)}
                await eventually(lambda one=one, want=want: want <= channels(one, "pub"), within=60)
                for topic in topics:
                    got = topic in channels(one, "pub") | channels(one, "subscribe")
                    matrix.cell(GIVEN, server, f"{topic} to {who}", got, given(server, who, topic))


def channels(one: Client, what: str) -> set[str]:
    return {push["channel"] for push in one.pushes if what in push}


async def bringing(matrix: Matrix, edge: Edge, principals: Sequence[Who], topics: Sequence[str]) -> None:
    """Everybody subscribes to everything with a token for it, of a key that opens some of it."""
    url = f"ws://127.0.0.1:{edge.port}/connection/websocket"
    for who in principals:
        async with client(url, bearer(who)) as one:
            for topic in topics:
                jwt = bearer(who, channel=topic)
                answer = await one.ask("subscribe", channel=topic, token=jwt)
                matrix.cell(TOKEN, who, topic, granted(answer), opened(who, topic) or allowed(who, topic, 0))


@pytest.mark.slow  # eight thousand questions
async def test_servers_and_tokens_open_what_they_may(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_debug(False)  # it doubles the time, and nothing here is about tasks
    matrix = Matrix()
    async with world(tmp_path) as (edge, log, declared):
        await serving(matrix, edge, PRINCIPALS, TOPICS)
        servers = [who for who in PRINCIPALS if who[0] in (*SERVERS, "user")]
        await giving(matrix, edge, log, declared, servers, TOPICS)
        await bringing(matrix, edge, PRINCIPALS, TOPICS)
    assert matrix.leaks == []
    assert matrix.refusals == []
    assert matrix.cells >= 8_000, matrix.cells


# --- broken on purpose ---

SOME: tuple[Who, ...] = (("user", "alice"), ("device", "7"), ("service", "orders"), ("operator", "root"))
PLACES = ["o/nobody", "o/users", "o/devices", "o/services", "o/operators", "u/bob/inbox", "n/alice/own", "n/x", "t/x"]


def anybody_is_a_server(patch: pytest.MonkeyPatch) -> None:
    def server(self: Any, key: str) -> Any:
        return api._Server(self._edge, self._edge.admit(key).principal, self.tell, self.surveying)

    patch.setattr(api.Servers, "server", server)


def a_key_may_everything(patch: pytest.MonkeyPatch) -> None:
    def opened(self: Declared, who: Principal, text: str, met: Any, right: Any) -> str:
        return "" if who.kind in SERVERS else real(self, who, text, met, right)

    real = Declared.refusal
    patch.setattr(Declared, "refusal", opened)


def a_server_overrules_a_deny(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Declared, "opened", lambda self, who, filter: self.meeting(filter))


def every_key_opens_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.adapters.tokens.claims.matches", lambda filter, name: True)


@pytest.mark.parametrize(
    ("broken", "columns"),
    [
        (anybody_is_a_server, {DOOR, PUBLISH, BROADCAST, HISTORY, PRESENCE, STATS, GIVE, GIVEN, CHANNELS}),
        (a_key_may_everything, {PUBLISH, BROADCAST, HISTORY, PRESENCE, STATS, GIVE, GIVEN, CHANNELS, TOKEN}),
        (a_server_overrules_a_deny, {GIVEN, TOKEN}),
        (every_key_opens_everything, {TOKEN}),
    ],
)
async def test_a_server_api_that_is_broken_on_purpose_is_caught(
    broken: Callable[[pytest.MonkeyPatch], None], columns: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    matrix = Matrix()
    async with world(tmp_path) as (edge, log, declared):
        await serving(matrix, edge, SOME, PLACES)
        await giving(matrix, edge, log, declared, SOME, PLACES)
        await bringing(matrix, edge, SOME, PLACES)
    assert matrix.ways() == columns
