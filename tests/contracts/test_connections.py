"""Who is connected, over HTTP: for operators alone, on every edge, and who did not answer is named."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import websockets

from gateway import limits
from gateway.adapters.http_api import Node
from gateway.core.connected import Said
from gateway.edge.revocations import revoke
from tests.contracts.rights_matrix import headers, verifier
from tests.gateways import Running, client, running_edge, token
from tests.letters import audited, door, problem
from tests.servers import eventually

SDK = {"name": "js", "version": "5.3.1"}


async def listed(http: httpx.AsyncClient, **asked: object) -> Any:
    answer = await http.get("/connections", params={name: str(value) for name, value in asked.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def clients(http: httpx.AsyncClient, **asked: object) -> set[str]:
    found = await listed(http, **asked)
    assert (found["left_out"], found["missing"]) == (0, [])
    return {one["client"] for one in found["connections"]}


async def test_a_row_says_what_an_operator_needs_and_nothing_secret(
    edge: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PING_EVERY", 0.05)  # the first one comes soon
    jwt, before = token("alice"), int(time.time() * 1000)
    async with client(edge.ws) as one, door(edge) as http:
        made = (await one.ask("connect", token=jwt, **SDK))["connect"]
        for n in range(7):
            assert "subscribe" in await one.ask("subscribe", channel=f"devices/{n}/status")

        async def answered() -> bool:
            return (await listed(http))["connections"][0]["round_trip"] is not None

        await eventually(answered)
        answer = await http.get("/connections")
        (row,) = answer.json()["connections"]
        assert 0 <= row.pop("round_trip") < 10_000
        assert before <= row.pop("since") <= int(time.time() * 1000)
        assert row == {
            "client": made["client"],
            "user": "user:alice",
            "edge": edge.edge.name,
            "transport": "websocket",
            "codec": "json",
            "sdk": "js 5.3.1",
            "subscriptions": 7,
            "filters": [f"devices/{n}/status" for n in range(limits.CONNECTION_FILTERS)],
            "waiting": 0,
        }
        assert answer.headers["cache-control"] == "no-store"
        for secret in (jwt, "127.0.0.1"):
            assert secret not in answer.text


async def test_filters_and_bounds(edge: Running) -> None:
    async with (
        client(edge.ws, token("alice")) as alice,
        client(edge.ws, token("bob")) as bob,
        client(edge.ws, token("bob", kind="viewer")),
        door(edge) as http,
    ):
        await alice.ask("subscribe", channel="devices/+/telemetry")
        await bob.ask("subscribe", channel="devices/7/telemetry")
        of = {one["user"]: one["client"] for one in (await listed(http))["connections"]}
        assert of.keys() == {"user:alice", "user:bob", "viewer:bob"}
        assert await clients(http, user="bob") == await clients(http, user="user:bob") == {of["user:bob"]}
        assert await clients(http, user="viewer:bob") == {of["viewer:bob"]}
        assert await clients(http, client=of["user:alice"]) == {of["user:alice"]}
        assert await clients(http, topic="devices/7/telemetry") == {of["user:alice"], of["user:bob"]}
        assert await clients(http, topic="devices/8/telemetry") == {of["user:alice"]}
        assert await clients(http, topic="devices/+/telemetry", user="bob") == set()
        assert "subscribe" in await bob.ask("subscribe", channel="devices/+/+")
        assert await clients(http, topic="devices/+/telemetry") == {of["user:alice"]}
        assert await clients(http, topic="devices/+/+") == {of["user:bob"]}
        assert await clients(http, user="anonymous") == await clients(http, slow=True) == set()
        bounded = await listed(http, limit=2)
        # The oldest; the others are counted.
        assert [one["client"] for one in bounded["connections"]] == sorted(of.values())[:2]
        assert bounded["left_out"] == 1


async def test_what_is_no_filter_is_refused(edge: Running) -> None:
    most = limits.CONNECTIONS_MOST
    async with door(edge) as http:
        for asked in ("limit=0", f"limit={most + 1}", "slow=very", "ip=::1", "user=a&user=b", f"user={'x' * 300}"):
            problem(await http.get(f"/connections?{asked}"), 400, "bad_request")
        assert (await http.get(f"/connections?limit={most}")).status_code == 200


async def test_nobody_but_an_operator_learns_anything(
    log_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    async with running_edge(log_url, verify=verifier(tmp_path)) as edge:
        for kind in ("user", "viewer", "device", "service"):
            async with door(edge, headers((kind, "eve"))) as eve:
                # Before the question is looked at.
                problem(await eve.get("/connections?nothing=1"), 403, "denied")
        async with door(edge, {}) as nobody:
            problem(await nobody.get("/connections"), 401, "bad_token")
        told = [line.partition(", ")[0] for line in audited(caplog) if "denied to list connections" in line]
        assert told == ["user:eve", "viewer:eve", "device:eve", "service:eve", "unknown"]
        caplog.clear()
        async with door(edge, headers(("operator", "root"))) as http:
            page = {"Origin": "https://elsewhere.example"}
            problem(await http.get("/connections", headers=page), 403, "denied")
            await listed(http)
        assert audited(caplog) == []  # who may look is not told of


@asynccontextmanager
async def deaf(edge: Running, topic: str) -> AsyncIterator[None]:
    """A subscriber that reads no more."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.connect(("127.0.0.1", edge.port))
    async with websockets.connect(edge.ws, sock=sock, compression=None, max_queue=1) as connection:
        for command in ({"connect": {"token": token("deaf")}}, {"subscribe": {"channel": topic}}):
            await connection.send(json.dumps({"id": 1, **command}))
            await connection.recv()
        yield
        connection.transport.abort()


async def test_who_does_not_read_stands_first(edge: Running) -> None:
    async with client(edge.ws, token("alice")), deaf(edge, "try/x"), door(edge) as http:
        for n in range(1, 200):
            assert (await http.post("/topics/try/x", content=b"x" * 30_000)).status_code == 201
            await eventually(lambda n=n: edge.edge.fanout.offered == n)
            if await clients(http, slow=True):
                break
        first, second = (await listed(http))["connections"]
        assert (first["user"], second["user"], second["waiting"]) == ("user:deaf", "user:alice", 0)
        assert 0 < first["waiting"] <= limits.SEND_BYTES + 2 * limits.TRANSPORT_BYTES


async def test_a_stream_that_does_not_read_is_shown_as_slow_and_stays_so_when_it_was_closed(edge: Running) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.connect(("127.0.0.1", edge.port))
    reader, writer = await asyncio.open_connection(sock=sock)
    asked = f"GET /topics/try%2Fx/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token('deaf')}\r\n\r\n"
    writer.write(asked.encode())
    await reader.readuntil(b"\nid: ")  # it has joined; what comes is not read
    fanout = edge.edge.fanout
    with closing(writer.transport):
        async with door(edge) as http:
            for n in range(1, 400):
                assert (await http.post("/topics/try/x", content=b"x" * 30_000)).status_code == 201
                await eventually(lambda n=n: fanout.offered == n or not len(fanout))
                if not len(fanout):
                    break
            (row,) = (await listed(http, slow=True))["connections"]
            assert (row["user"], row["transport"]) == ("user:deaf", "sse")
            assert row["waiting"] > 0


async def test_a_stream_of_events_is_a_connection_too_and_can_be_sent_away(edge: Running) -> None:
    alice = {"Authorization": f"Bearer {token('alice')}"}
    async with door(edge) as http, door(edge, alice) as mine, client(edge.ws, token("alice")) as other:
        async with mine.stream("GET", "/topics/devices%2F%2B%2Fstatus/events") as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            rows = {one["transport"]: one for one in (await listed(http, user="alice"))["connections"]}
            assert rows["sse"]["filters"] == ["devices/+/status"]
            assert (rows["sse"]["codec"], rows["sse"]["round_trip"], rows["sse"]["waiting"]) == ("json", None, 0)
            gone = {"user": "alice", "client": rows["sse"]["client"]}
            assert (await http.post("/api/disconnect", json=gone)).json() == {"result": {}}
            async with asyncio.timeout(20):
                async for _ in lines:  # it has an end
                    pass
        assert "error" in await other.ask("subscribe", channel="nothing")  # still there

        async def alone() -> bool:
            return await clients(http, user="alice") == {rows["websocket"]["client"]}

        await eventually(alone)


async def test_whichever_edge_is_asked_tells_of_all(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SURVEY_WITHIN", 20.0)  # nobody waits for it: both answer
    async with running_edge(log_url) as one, running_edge(log_url) as other:
        async with client(one.ws, token("alice")), client(other.ws, token("bob")), client(other.ws, token("bob")):
            for edge in (one, other):
                async with door(edge) as http:

                    async def both(http: httpx.AsyncClient = http) -> bool:
                        return len((await listed(http))["edges"]) == 2  # each has said that it lives

                    await eventually(both)
                    found = await listed(http)
                    assert found["edges"] == sorted([one.edge.name, other.edge.name])
                    assert (found["missing"], found["left_out"]) == ([], 0)
                    where = {(row["user"], row["edge"]) for row in found["connections"]}
                    assert where == {("user:alice", one.edge.name), ("user:bob", other.edge.name)}
                    bounded = await listed(http, user="bob", limit=1)
                    assert [row["user"] for row in bounded["connections"]] == ["user:bob"]
                    assert bounded["left_out"] == 1


async def test_an_edge_that_says_nothing_or_nothing_known_is_named(
    log_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SURVEY_WITHIN", 0.2)
    async with running_edge(log_url) as edge, client(edge.ws, token("alice")), door(edge) as http:
        for uid, name in (("silent", "edge-silent"), ("foreign", "edge-foreign")):
            node = Node(uid, name, "0", 1, 1, 1, 1, 1)
            await edge.log.edges.tell(uid, msgspec.json.encode(node))
        monkeypatch.setattr("gateway.edge.surveying.new_id", lambda: "the-survey")
        await edge.log.surveys.answer("the-survey", "foreign", b'{"of": "another version"}')
        found = await listed(http)
        assert found["missing"] == ["edge-foreign", "edge-silent"]
        assert [row["user"] for row in found["connections"]] == ["user:alice"]
        monkeypatch.setattr(limits, "SURVEYS", 0)
        problem(await http.get("/connections"), 429, "busy")


async def test_an_edge_that_answers_enough_of_such_questions_is_named(
    log_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SURVEY_WITHIN", 0.2)
    monkeypatch.setattr(limits, "SURVEY_ANSWERS", 0)
    async with running_edge(log_url) as one, running_edge(log_url) as other, door(one) as http:

        async def named() -> bool:
            return bool((await listed(http))["missing"] == [other.edge.name])

        await eventually(named)


async def test_who_is_revoked_while_edges_are_asked_hears_nothing(
    edge: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SURVEY_WITHIN", 60.0)
    monkeypatch.setattr("gateway.edge.surveying.new_id", lambda: "the-survey")
    await edge.log.edges.tell("silent", msgspec.json.encode(Node("silent", "edge-silent", "0", 1, 1, 1, 1, 1)))
    async with door(edge) as http:
        asking = asyncio.create_task(http.get("/connections"), name="asking")
        await eventually(lambda: edge.edge._connections._surveying._asking == 1)
        await revoke(edge.log.control, "sub", "operator:root", 60, "test")
        await eventually(lambda: len(edge.edge.revocations) == 1)
        await edge.log.surveys.answer("the-survey", "silent", msgspec.json.encode(Said([], 0)))
        assert "revoked meanwhile" in problem(await asking, 401, "bad_token")
