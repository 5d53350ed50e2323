"""Pages and servers at the doors of HTTP: one-use tickets for EventSource, API keys in the forms that clients send."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import limits
from gateway.adapters.log import Log
from gateway.adapters.tokens import Verifier, add_api_key, drop_api_keys
from gateway.core.declared import Declared, Topic
from gateway.edge.process import Edge
from gateway.edge.revocations import revoke
from gateway.errors import BadToken
from gateway.settings import GatewayTable, Settings
from tests.gateways import TOPICS, Running, app_logs, client, running_edge, token
from tests.servers import eventually

MINE, EVENTS = "users/alice/inbox", "/topics/users%2Falice%2Finbox/events"
ALICE = {"authorization": f"Bearer {token('alice')}"}


@asynccontextmanager
async def door(log_server: str) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http, timeout=20) as http:
        yield edge, http


async def ticket(http: httpx.AsyncClient, **more: Any) -> str:
    answer = await http.post("/tickets", json={"filter": MINE, **more}, headers=ALICE)
    assert answer.status_code == 201, answer.text
    assert answer.json()["expires_in"] == limits.TICKET_LIFE
    return str(answer.json()["ticket"])


async def opens(http: httpx.AsyncClient, path: str, **more: Any) -> int:
    async with http.stream("GET", path, **more) as stream:
        return stream.status_code


async def test_a_ticket_opens_one_stream_of_its_filter_once(log_server: str) -> None:
    async with door(log_server) as (edge, http):
        async with http.stream("GET", EVENTS, params={"ticket": await ticket(http)}) as stream:
            assert stream.status_code == 200
            blocks = stream.aiter_bytes()
            await anext(blocks)
            await eventually(lambda: len(edge.edge.fanout) == 1)
            root = {"authorization": f"Bearer {token('root', kind='operator')}"}
            assert (await http.post(f"/topics/{MINE}", json={"hello": 1}, headers=root)).status_code == 201
            seen = b""
            async with asyncio.timeout(20):
                while b"hello" not in seen:
                    seen += await anext(blocks)
        once = await ticket(http)
        answers = await asyncio.gather(*(opens(http, EVENTS, params={"ticket": once}) for _ in range(5)))
        assert sorted(answers) == [200, 401, 401, 401, 401]


async def test_a_ticket_is_good_for_nothing_else(log_server: str) -> None:
    async with door(log_server) as (_, http):
        for path, method, more in (
            ("/topics/rooms%2F1%2Fmessages/events", "GET", {}),  # another filter
            (EVENTS, "HEAD", {}),
            (EVENTS, "GET", {"headers": ALICE}),  # beside a token
            (f"/topics/{MINE}", "POST", {"json": 1}),
            ("/asyncapi.json", "GET", {}),
            ("/dead", "GET", {}),
        ):
            answer = await http.request(method, path, params={"ticket": await ticket(http)}, **more)
            assert answer.status_code in (401, 404), (path, method, answer.text)
        for made_up in ("", "x", "x" * 129, "x" * 43, "a\0b"):
            assert await opens(http, EVENTS, params={"ticket": made_up}) == 401
        twice = await ticket(http)
        assert await opens(http, f"{EVENTS}?ticket={twice}&ticket={twice}") == 401
        assert await opens(http, EVENTS, params={"token": token("alice")}) == 401, "tokens never come in a query"


async def test_a_ticket_is_given_to_who_may_read(log_server: str) -> None:
    async with door(log_server) as (_, http):
        for asked, headers, status in (
            ({"filter": MINE}, {}, 401),
            ({"filter": MINE}, {"authorization": f"Bearer {token('bob')}"}, 403),
            ({"filter": "users/+/inbox"}, ALICE, 403),
            ({"filter": "nowhere"}, ALICE, 404),
            ({"filter": "a//#/b"}, ALICE, 400),
            ({"filter": MINE, "last_event_id": "nonsense"}, ALICE, 400),
            ({"filter": MINE, "more": 1}, ALICE, 422),
            ({}, ALICE, 422),
        ):
            assert (await http.post("/tickets", json=asked, headers=headers)).status_code == status, asked


async def test_a_ticket_goes_with_its_bearer_and_with_time(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with door(log_server) as (edge, http):
        mine = await ticket(http)
        await revoke(edge.log.control, "sub", "user:alice", 3600, "a test")

        async def refused() -> bool:
            return (await http.post("/tickets", json={"filter": MINE}, headers=ALICE)).status_code == 401

        await eventually(refused)
        assert await opens(http, EVENTS, params={"ticket": mine}) == 401
    monkeypatch.setattr(limits, "TICKET_LIFE", 0.05)
    async with door(log_server) as (edge, http):
        bob = {"authorization": f"Bearer {token('bob')}"}
        answer = await http.post("/tickets", json={"filter": "rooms/1/messages"}, headers=bob)
        key = (await edge.log._links.own.ask("KEYS", "*ticket*")) or []

        async def gone() -> bool:
            return not await edge.log._links.own.ask("KEYS", "*ticket*")

        await eventually(gone)
        assert answer.json()["ticket"] not in str(key)


async def test_a_ticket_may_begin_where_the_page_stood(log_server: str) -> None:
    root = {"authorization": f"Bearer {token('root', kind='operator')}"}
    async with door(log_server) as (_, http):

        async def until(word: bytes, **params: str) -> bytes:
            seen = b""
            async with asyncio.timeout(20), http.stream("GET", EVENTS, params=params) as stream:
                async for block in stream.aiter_bytes():
                    seen += block
                    if word in seen and seen.endswith(b"\n\n"):
                        return seen
            raise AssertionError(seen)

        first = await until(b"id: ", ticket=await ticket(http))
        at = first.rpartition(b"id: ")[2].split(b"\n")[0].decode()
        await http.post(f"/topics/{MINE}", json="missed", headers=root)
        assert b"missed" in await until(b"missed", ticket=await ticket(http, last_event_id=at))


async def test_tickets_are_given_at_a_bounded_rate(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TICKETS_PER_SECOND", 3)
    async with door(log_server) as (edge, http):
        monkeypatch.setattr(edge.edge._booth, "_now", lambda: 1_800_000_000.0)
        for _ in range(3):
            await ticket(http)
        answer = await http.post("/tickets", json={"filter": MINE}, headers=ALICE)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


async def test_servers_come_by_api_key(log_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEYS_LOOK_EVERY", 0.05)
    settings = Settings(gateway=GatewayTable(data=str(tmp_path)))
    key = add_api_key(settings.api_keys_file, "orders")
    topics = (*TOPICS, Topic(pattern="orders/{n}/placed", write=("service:orders",), read=("service",)))
    log = await Log.open(log_server, app_logs(topics))
    edge = Edge(log, Declared(topics), Verifier(settings))
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(edge.run("127.0.0.1", 0, stop, ready), name="edge")
    try:
        await ready.wait()
        url = f"http://127.0.0.1:{edge.port}"
        path = "/topics/orders/1/placed"
        async with httpx.AsyncClient(base_url=url) as http:
            for good in (
                {"x-api-key": key},
                {"authorization": f"apikey {key}"},
                {"authorization": f"Apikey {key}"},
                {"authorization": f"Bearer {key}"},
            ):
                assert (await http.post(path, json=1, headers=good)).status_code == 201
            for bad in (
                {"x-api-key": key[:-1] + ("A" if key[-1] != "A" else "B")},
                {"x-api-key": ""},
                {"x-api-key": "gwk_"},
                {"x-api-key": token("alice")},  # a token is none
                {"authorization": f"apikey {token('alice')}"},
                {"authorization": f"Basic {key}"},
                {"x-api-key": key, "authorization": f"Bearer {token('alice')}"},
            ):
                answer = await http.post(path, json=1, headers=bad)
                assert answer.status_code == 401, bad
                assert key not in answer.text
            assert (await http.post(path, json=1, params={"api_key": key})).status_code == 401
            doubled = [("x-api-key", key), ("x-api-key", key)]
            assert (await http.post(path, json=1, headers=doubled)).status_code == 401
            assert (await http.post("/topics/users/a/inbox", json=1, headers={"x-api-key": key})).status_code == 403
            async with client(f"ws://127.0.0.1:{edge.port}/connection/websocket") as one:
                assert "expires" not in (await one.ask("connect", token=key))["connect"]
                # The key goes from the file: so does who came in by it.
                assert drop_api_keys(settings.api_keys_file, "orders") == 1
                assert await one.closed() == 3500
            assert (await http.post(path, json=1, headers={"x-api-key": key})).status_code == 401
    finally:
        stop.set()
        await running
        await log.close()


async def test_neither_tickets_nor_tokens_are_logged(log_server: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with door(log_server) as (edge, http):
        mine = await ticket(http)
        # What httpx logs is the client's; ours begin with gateway or uvicorn.
        await opens(http, EVENTS, params={"ticket": mine})
        await opens(http, EVENTS, params={"ticket": mine})
        metrics = (await http.get("/metrics")).text
        await revoke(edge.log.control, "jti", "x", 1, "a test")
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    for secret in (mine, ALICE["authorization"].removeprefix("Bearer ")):
        assert not [line for line in ours if secret in line]
        assert secret not in metrics


async def test_a_ticket_that_somebody_else_wrote_opens_nothing(log_server: str) -> None:
    async with running_edge(log_server) as edge:
        key = edge.log.tickets._key("forged")
        for value in (b"\x91\x81\xc1", b"\xff", b"", b"\x93\xa1a\x01\xa0"):
            await edge.log._links.own.ask("SET", key, value)
            with pytest.raises(BadToken, match="cannot be read"):
                await edge.log.tickets.take("forged")
