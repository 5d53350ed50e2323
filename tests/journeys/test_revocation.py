"""A token is taken back: every edge closes what came in by it and refuses it from then on, a restarted one too."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import limits
from gateway.adapters.embedded import valkey
from gateway.adapters.log import Log, Notice, Reply
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from gateway.core.declared import Declared
from gateway.core.event import Position
from gateway.edge.process import Edge
from gateway.edge.revocations import revoke
from gateway.errors import LimitReached, Refused
from tests.gateways import SECRET, TOPICS, Client, Running, app_logs, client, running_edge, token, verifier
from tests.servers import eventually

#: A guard against hanging: ten times the second that we promise.
WITHIN = 10.0


def bearer(jwt: str) -> dict[str, str]:
    return {"authorization": f"Bearer {jwt}"}


def made(sub: str, jti: str = "", kind: str = "user", ago: float = 60) -> str:
    return issue(SECRET, Principal(kind, sub), 3600, time.time() - ago, jti=jti)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Log]:
    log = await Log.open(url, app_logs(TOPICS))
    try:
        yield log
    finally:
        await log.close()


async def publishes(edge: Running, jwt: str) -> int:
    async with httpx.AsyncClient(base_url=edge.http, headers=bearer(jwt)) as http:
        return (await http.post("/topics/rooms/1/messages", json=1)).status_code


def said(watcher: Client) -> list[Any]:
    return [push["pub"]["data"] for push in watcher.pushes]


async def test_every_edge_sends_a_principal_away_and_nobody_else(log_server: str) -> None:
    async with running_edge(log_server) as one, running_edge(log_server) as two, opened(log_server) as log:
        alice, bob = made("alice"), made("bob")
        async with client(one.ws, alice) as a1, client(two.ws, alice) as a2, client(two.ws, bob) as b:
            for watcher in (a1, a2, b):
                await watcher.ask("subscribe", channel="rooms/1/messages")

            async def talk() -> None:
                """Say which edge knows already, until both do."""
                while said(b)[-1:] != [[1, 1]]:
                    knows = [len(edge.edge.revocations) for edge in (one, two)]
                    assert "publish" in await b.ask("publish", channel="rooms/1/messages", data=knows)

            async with asyncio.TaskGroup() as group:
                group.create_task(talk(), name="talk")
                await eventually(lambda: a1.pushes and a2.pushes)
                await revoke(log.control, "sub", "user:alice", 3600, "a test")
                async with asyncio.timeout(WITHIN):
                    assert await a1.closed() == await a2.closed() == 3500
            for watcher, knew in ((a1, 0), (a2, 1)):
                assert not any(knows[knew] for knows in said(watcher)), "said after its edge knew"
            for edge in (one, two):
                assert await publishes(edge, alice) == 401
                assert await publishes(edge, bob) == 201
                async with client(edge.ws) as again:
                    with pytest.raises(ConnectionError, match="3500"):
                        await again.ask("connect", token=alice)
            # One that was made later is another one: she may have got her account back.
            assert await publishes(one, issue(SECRET, Principal("user", "alice"), 60, time.time() + 2)) == 201
        step = "what is in force is read by an edge that starts later"
        async with running_edge(log_server) as three:
            assert await publishes(three, alice) == 401, step
            assert await publishes(three, bob) == 201, step


@pytest.mark.parametrize(("what", "name", "gone"), [("jti", "j-1", {"j-1"}), ("key", "development", {"j-1", "j-2"})])
async def test_one_token_or_all_of_a_key(what: str, name: str, gone: set[str], log_server: str) -> None:
    async with running_edge(log_server) as edge, opened(log_server) as log:
        tokens = {jti: made("alice", jti) for jti in ("j-1", "j-2")}
        async with client(edge.ws, tokens["j-1"]) as first, client(edge.ws, tokens["j-2"]) as second:
            await revoke(log.control, what, name, 3600, "a test")  # type: ignore[arg-type]  # a word of the table above
            assert await first.closed() == 3500
            if "j-2" in gone:
                assert await second.closed() == 3500
        for jti, jwt in tokens.items():
            assert await publishes(edge, jwt) == (401 if jti in gone else 201)


async def test_a_stream_of_sse_ends(log_server: str) -> None:
    alice = made("alice")
    path = "/topics/rooms%2F1%2Fmessages/events"
    async with (
        running_edge(log_server) as edge,
        opened(log_server) as log,
        httpx.AsyncClient(base_url=edge.http, headers=bearer(alice), timeout=30) as http,
    ):
        async with http.stream("GET", path) as stream:
            assert stream.status_code == 200
            blocks = stream.aiter_bytes()
            await anext(blocks)
            await eventually(lambda: len(edge.edge.fanout) == 1)
            await revoke(log.control, "sub", "user:alice", 3600, "a test")
            async with asyncio.timeout(WITHIN):
                rest = b"".join([block async for block in blocks])
        assert b"data:" not in rest
        assert (await http.get(path)).status_code == 401
        # A stream that nobody reads is none.
        assert (await http.head(path)).status_code == 401
    assert not edge.edge._held


async def test_an_answer_that_came_too_late_is_not_given(log_server: str) -> None:
    async with running_edge(log_server) as edge, opened(log_server) as log, httpx.AsyncClient(timeout=30) as http:
        room = edge.edge.declared.find("rooms/1/messages").partition
        waiting = [
            asyncio.create_task(
                http.post(f"{edge.http}/topics/rooms/1/messages?wait=20s", json=sub, headers=bearer(made(sub))),
                name=sub,
            )
            for sub in ("alice", "bob")
        ]
        await eventually(lambda: len(edge.edge.requests) == 2)
        await revoke(log.control, "sub", "user:alice", 3600, "a test")
        await eventually(lambda: len(edge.edge.revocations) == 1)
        for record in (await log.read(room, Position(0, 0), 100)).records:
            await log.replies.send(room, record.event.id, Reply(data=record.event.data))
        hers, his = await asyncio.gather(*waiting)
        assert (his.status_code, his.json()) == (200, "bob")
        assert (hers.status_code, "alice" in hers.text) == (401, False)


async def test_operators_revoke_over_http_and_the_audit_log_hears_of_it(
    log_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    alice, root = made("alice"), made("root", kind="operator")
    asked = {"what": "sub", "name": "user:alice"}
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http) as http:
        assert (await http.post("/revocations", json=asked)).status_code == 401
        assert (await http.post("/revocations", json=asked, headers=bearer(alice))).status_code == 403
        answer = await http.post("/revocations", json=asked, headers=bearer(root))
        assert answer.status_code == 201, answer.text
        assert answer.json()["until"] - answer.json()["at"] == limits.TOKEN_LIFE

        async def refused() -> bool:
            return await publishes(edge, alice) == 401

        await eventually(refused)
        for wrong, status in (
            ({"what": "sub", "name": "alice"}, 400),
            ({"what": "sub", "name": "root:alice"}, 400),
            ({"what": "aud", "name": "x"}, 422),
            ({"what": "jti", "name": ""}, 422),
            ({"what": "jti", "name": "a\nb"}, 400),
            ({"what": "jti", "name": "x", "seconds": 0}, 422),
            ({"what": "jti", "name": "x", "more": 1}, 422),
            ([], 422),
        ):
            assert (await http.post("/revocations", json=wrong, headers=bearer(root))).status_code == status, wrong
    told = [record.getMessage() for record in caplog.records if record.name == "gateway.audit"]
    assert "operator:root, 127.0.0.1: revoked sub user:alice for 31622400 s" in told
    assert any("user:alice, 127.0.0.1: denied to make revocations" in line for line in told)
    assert all(alice not in line and root not in line for line in told)


async def test_the_log_server_restarts_and_nothing_is_forgotten(tmp_path: Path) -> None:
    alice, bob = made("alice"), made("bob")
    with valkey(tmp_path / "log") as server:
        async with running_edge(server.url) as edge, client(edge.ws, bob) as watching:
            async with opened(server.url) as log:
                await revoke(log.control, "sub", "user:alice", 3600, "a test")
            server.kill()
            await eventually(lambda: edge.log.state == "down")
            assert await publishes(edge, alice) == 401, "it knows without the log server"
            server.start()
            await eventually(lambda: edge.log.state == "up", within=30)
            async with opened(server.url) as log:
                assert [one.name for one in await log.control.revoked()] == ["user:alice"]
                await revoke(log.control, "sub", "user:bob", 3600, "a test")
            assert await watching.closed() == 3500
            assert await publishes(edge, alice) == 401


#: Deeper than a decoder goes, where a struct skips what it does not know.
DEEP = Notice("disconnect", b'{"user":"x","disconnect":{"x":' + b"[" * 100_000)


async def test_notices_of_a_foreign_writer_do_no_harm(log_server: str) -> None:
    async with running_edge(log_server) as edge, opened(log_server) as log, client(edge.ws, made("alice")) as one:
        heard: list[bytes] = []
        edge.edge.revocations.listeners["told"] = heard.append
        for notice in (Notice("revoked", b"nonsense"), Notice("revoked", b"\xff \n\xff"), Notice("unknown", b""), DEEP):
            await log.control.announce(notice)
        await log._links.own.ask("HSET", "{gateway}:revoked", "sub user:alice", "never")
        await log.control.announce(Notice("told", b"everybody"))
        await eventually(lambda: heard == [b"everybody"])
        assert "error" not in await one.ask("subscribe", channel="rooms/1/messages")
        async with running_edge(log_server) as later:
            assert await publishes(later, made("alice")) == 201
        await revoke(log.control, "sub", "user:alice", 3600, "a test")
        assert await one.closed() == 3500


async def test_more_revocations_than_can_be_kept_are_refused(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS", 3)
    async with opened(log_server) as log:
        for n in range(3):
            await revoke(log.control, "jti", f"j-{n}", 3600, "a test")
        with pytest.raises(LimitReached):
            await revoke(log.control, "jti", "one more", 3600, "a test")
        await revoke(log.control, "jti", "j-1", 1, "a test")  # the same one again takes no room

        async def room() -> bool:  # as soon as the one is over
            try:
                await revoke(log.control, "jti", "one more", 3600, "a test")
            except LimitReached:
                return False
            return True

        await eventually(room, within=30)
        assert {one.name for one in await log.control.revoked()} == {"j-0", "j-2", "one more"}
        with pytest.raises(Refused, match="is nobody"):
            await revoke(log.control, "sub", "alice", 3600, "a test")


async def test_an_edge_that_does_not_know_yet_lets_nobody_in(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_edge(log_server, anonymous=True) as edge, httpx.AsyncClient(base_url=edge.http) as http:
        edge.edge.revocations.known.clear()
        answer = await http.post("/topics/try/x", content=b"x", headers=bearer(token()))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await http.post("/topics/try/x", content=b"x")).status_code == 201, "nobody in particular is no token"
        assert "revocations: not read yet" in (await http.get("/readyz")).text
        async with client(edge.ws) as one:
            reply = await one.ask("connect", token=token())
            assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
            edge.edge.revocations.known.set()
            assert "connect" in await one.ask("connect", token=token())


async def test_a_revoked_token_does_not_reach_a_service_s_routes(log_server: str) -> None:
    async with opened(log_server) as log:
        edge = Edge(log, Declared(TOPICS), verifier(), services={"shop.stock": "http://127.0.0.1:1"})
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(edge.run("127.0.0.1", 0, stop, ready), name="edge")
        try:
            await ready.wait()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", headers=bearer(made("eve"))) as http:
                assert (await http.get("/shop/stock")).status_code == 503, "it is passed on, to a service that is away"
                await revoke(log.control, "sub", "user:eve", 3600, "a test")

                async def refused() -> bool:
                    return (await http.get("/shop/stock")).status_code == 401

                await eventually(refused)
                other = await http.get("/shop/stock", headers={"authorization": "Basic YTpi"})
                assert other.status_code == 503, "what is not ours to judge is the service's"
        finally:
            stop.set()
            await running
