"""Plain HTTP publishers on the edge: what is acknowledged stands in the log, and every refusal says what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import redis as redis_client
from prometheus_client.parser import text_string_to_metric_families

from gateway import limits
from gateway.adapters.child import Server
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from gateway.core.declared import Topic
from gateway.core.event import Position
from tests.gateways import SECRET, TOPICS, Running, client, running_edge, token
from tests.journeys.steps import step
from tests.servers import eventually

HANG = 20.0


def bearer(sub: str = "root", *, kind: str = "operator") -> dict[str, str]:
    return {"Authorization": f"Bearer {token(sub, kind=kind)}"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem+json of ``answer``, which must be one in every respect."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    assert told["type"] == f"urn:topic-gateway:{code}"
    assert told["status"] == status
    assert told["title"]
    assert told["detail"]
    assert told["retryable"] is (status in (429, 503, 504, 507))
    assert ("retry-after" in answer.headers) is told["retryable"]
    assert ("www-authenticate" in answer.headers) is (status == 401)
    return told


async def stored(edge: Running, topic: str) -> list[tuple[str, bytes]]:
    """What the log holds in the partition of ``topic``: ids and payloads."""
    page = await edge.log.read(edge.edge.declared.find(topic).partition, Position(0, 0), 1_000)
    return [(record.event.id, record.event.data) for record in page.records]


async def test_a_publish_is_answered_with_where_it_stands(log_server: str) -> None:
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http, headers=bearer()) as http:
        step("a publish is 201 with id, topic, epoch, offset and durability")
        answer = await http.post("/topics/devices/7/telemetry", content=b'{ "t":\n21.5 }')
        assert answer.status_code == 201
        told = answer.json()
        assert told.keys() == {"id", "topic", "epoch", "offset", "duplicate", "durability"}
        assert (told["topic"], told["duplicate"], told["durability"]) == ("devices/7/telemetry", False, "disk")
        assert told["epoch"].isdigit()
        assert told["offset"] > 0
        assert await stored(edge, "devices/7/telemetry") == [(told["id"], b'{ "t": 21.5 }')]
        step("a publisher may name the event itself")
        answer = await http.post("/topics/devices/7/telemetry", json=1, headers={"Event-Id": "reading-1"})
        assert answer.json()["id"] == "reading-1"
        assert answer.json()["offset"] == told["offset"] + 1
        step("what is not kept has no position")
        typing = await http.post("/topics/rooms/1/typing", json=1, headers=bearer("alice", kind="user"))
        assert (typing.status_code, typing.json()["epoch"], typing.json()["offset"]) == (201, "", 0)
        assert typing.json()["durability"] == "none"


async def test_one_idempotency_key_is_one_event(log_server: str) -> None:
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http, headers=bearer()) as http:
        path, key = "/topics/devices/7/telemetry", {"Idempotency-Key": "k-1"}
        first = await http.post(path, json={"n": 1}, headers=key)
        step("the same key and body: 200, the first answer again")
        again = await http.post(path, json={"n": 1}, headers={**key, "Event-Id": "other"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == {**first.json(), "duplicate": True}
        step("the same key and another body: 422")
        problem(await http.post(path, json={"n": 2}, headers=key), 422, "idempotency_key_reused")
        step("the key is its principal's and its topic's alone")
        assert (await http.post(path, json={"n": 2}, headers={**key, **bearer("other")})).status_code == 201
        assert (await http.post("/topics/devices/8/telemetry", json={"n": 2}, headers=key)).status_code == 201
        step("ten at once with one key are one event")
        before = len(await stored(edge, "devices/7/telemetry"))
        many = await asyncio.gather(*(http.post(path, json=3, headers={"Idempotency-Key": "k-2"}) for _ in range(10)))
        assert sorted(answer.status_code for answer in many) == [200] * 9 + [201]
        assert len({(answer.json()["id"], answer.json()["offset"]) for answer in many}) == 1
        assert len(await stored(edge, "devices/7/telemetry")) == before + 1


async def test_who_may_publish(log_server: str) -> None:
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http) as http:
        telemetry, inbox = "/topics/devices/7/telemetry", "/topics/users/alice/inbox"
        step("who may not is told what refused")
        told = problem(await http.post(telemetry, json=1, headers=bearer("7", kind="user")), 403, "denied")
        assert "user:7 may not publish 'devices/7/telemetry'" in told["detail"]
        assert "devices/{device}/telemetry" in told["detail"]
        assert (await http.post(telemetry, json=1, headers=bearer())).status_code == 201
        step("a user writes where users may; an operator where operators may")
        assert (
            await http.post("/topics/rooms/1/messages", json=1, headers=bearer("a", kind="user"))
        ).status_code == 201
        problem(await http.post(inbox, json=1, headers=bearer("alice", kind="user")), 403, "denied")
        assert (await http.post(inbox, json=1, headers=bearer())).status_code == 201
        step("without a token there is nothing, where anonymous clients are not allowed")
        problem(await http.post("/topics/try/hello", content=b"x"), 401, "bad_token")
        step("what is no token, or no longer, is 401")
        for header in ("Bearer", "Basic YTpi", "Bearer x", "Bearer a.b.c", "Digest x", token()):
            problem(await http.post(telemetry, json=1, headers={"Authorization": header}), 401, "bad_token")
        past = issue(SECRET, Principal("operator", "root"), 60, time.time() - 3_600)
        expired = {"Authorization": f"Bearer {past}"}
        problem(await http.post(telemetry, json=1, headers=expired), 401, "token_expired")
        assert await stored(edge, "users/alice/inbox") != []
    async with running_edge(log_server, anonymous=True) as edge, httpx.AsyncClient(base_url=edge.http) as http:
        step("where they are allowed, anonymous clients have what anyone may")
        assert (await http.post("/topics/try/hello", content=b"x")).status_code == 201
        problem(await http.post(telemetry, json=1), 403, "denied")


LONG = "x" * (limits.TOPIC_BYTES + 1)

#: path, body, headers -> status, code
REFUSED: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("nothing/here", b"1", {}, 404, "unknown_topic"),
    ("devices/7", b"1", {}, 404, "unknown_topic"),
    ("devices/%2B/telemetry", b"1", {}, 400, "bad_topic"),
    ("devices/+/telemetry", b"1", {}, 400, "bad_topic"),
    ("try/%23", b"1", {}, 400, "bad_topic"),
    ("", b"1", {}, 400, "bad_topic"),
    ("$SYS/x", b"1", {}, 400, "bad_topic"),
    ("try/" + LONG, b"1", {}, 400, "bad_topic"),
    ("try/" + "a/" * 12, b"1", {}, 400, "bad_topic"),
    ("try/%00", b"1", {}, 400, "bad_topic"),
    ("try/%0A", b"1", {}, 400, "bad_topic"),
    ("try/%FF", b"1", {}, 400, "bad_topic"),
    ("try/%ED%A0%80", b"1", {}, 400, "bad_topic"),
    ("devices/7/telemetry", b"", {}, 422, "bad_payload"),
    ("devices/7/telemetry", b"{", {}, 422, "bad_payload"),
    ("devices/7/telemetry", b"NaN", {}, 422, "bad_payload"),
    ("devices/7/telemetry", b"1 2", {}, 422, "bad_payload"),
    ("devices/7/telemetry", b'"\xff"', {}, 422, "bad_payload"),
    ("devices/7/telemetry", b'"\\ud800"', {}, 422, "bad_payload"),
    ("devices/7/telemetry", b'{"a":1,"a":2}', {}, 422, "bad_payload"),
    ("devices/7/telemetry", b"[" * 65 + b"]" * 65, {}, 422, "bad_payload"),
    ("devices/7/telemetry", b"[" * 30_000 + b"]" * 30_000, {}, 422, "bad_payload"),
    ("devices/7/telemetry", b"9" * 400, {}, 422, "bad_payload"),
    ("notes/1", b"\xff", {}, 422, "bad_payload"),
    ("devices/7/telemetry", b"1", {"Event-Id": "x" * 129}, 400, "bad_request"),
    ("devices/7/telemetry", b"1", {"Event-Id": "a\tb"}, 400, "bad_request"),
    ("devices/7/telemetry", b"1", {"Idempotency-Key": "x" * 129}, 400, "bad_request"),
    ("try/x", b"1", {"Content-Type": "x" * 129}, 400, "bad_request"),
    ("devices/7/telemetry", b"1", {"Origin": "https://evil.example"}, 403, "denied"),
]


async def test_what_is_refused_and_why(log_server: str) -> None:
    topics = (*TOPICS, Topic(pattern="notes/{note}", payload="text", write=("operator",)))
    async with (
        running_edge(log_server, topics) as edge,
        httpx.AsyncClient(base_url=edge.http, headers=bearer()) as http,
    ):
        for path, body, headers, status, code in REFUSED:
            step(f"POST {path[:40]!r} {body[:20]!r}: {status} {code}")
            problem(await http.post(f"/topics/{path}", content=body, headers=headers), status, code)
        for partition in edge.log.partitions():
            assert (await edge.log.read(partition, Position(0, 0), 1_000)).records == []


async def test_health_and_metrics(log_server: str) -> None:
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http) as http:
        for path in ("/livez", "/readyz"):
            step(f"GET {path}: ok")
            assert (await http.get(path)).text == "ok\n"
            assert (await http.head(path)).status_code == 200
        async with client(edge.ws, token("alice-who-watches")) as alice:
            await alice.ask("subscribe", channel="rooms/secret-room/messages")
            await alice.ask("publish", channel="rooms/secret-room/messages", data=1)
            await http.post("/topics/devices/secret-pump/telemetry", json=1, headers=bearer("secret-operator"))
            await http.post("/topics/devices/secret-pump/telemetry", json=1, headers=bearer("mallory", kind="user"))
            answer = await http.get("/metrics")
        step("metrics parse, and no label names a topic or a user")
        families = list(text_string_to_metric_families(answer.text))
        assert {f.name for f in families} >= {"gateway_connections", "gateway_published", "gateway_encoded"}
        assert all(f.documentation for f in families)
        samples = {s.name: s.value for f in families for s in f.samples}
        assert samples["gateway_connections"] == 1
        assert samples["gateway_published_total"] == 1
        labels = {value for f in families for s in f.samples for value in s.labels.values()}
        assert not [value for value in labels if "secret" in value or "mallory" in value or "/" in value]


@pytest.mark.slow
async def test_a_log_server_that_dies_and_comes_back(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server()
    async with running_edge(server.url) as edge, httpx.AsyncClient(base_url=edge.http, headers=bearer()) as http:
        path, acknowledged = "/topics/devices/7/telemetry", list[str]()

        async def publish() -> int:
            answer = await http.post(path, json=1, timeout=HANG)
            if answer.status_code == 201:
                acknowledged.append(answer.json()["id"])
            else:
                problem(answer, 503, "unavailable")
            return answer.status_code

        for _ in range(20):
            assert await publish() == 201
        step("the log server is killed: publishers hear 503 and when to come back; /readyz says why; /livez is well")
        server.kill()
        assert await publish() == 503
        await eventually(lambda: edge.log.state == "down")
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.text.startswith("log: ")) == (503, True)
        assert (await http.get("/livez")).status_code == 200
        watcher = bearer("a", kind="user")
        answer = await http.get("/topics/devices%2F7%2Ftelemetry/events", headers=watcher, timeout=HANG)
        problem(answer, 503, "unavailable")
        step("it comes back, and everything heals by itself")
        server.start()

        async def healed() -> bool:
            return await publish() == 201

        await eventually(healed, within=HANG)

        async def ready_again() -> bool:
            return (await http.get("/readyz")).text == "ok\n"

        await eventually(ready_again, within=HANG)
        step("nothing that was acknowledged is lost")
        assert {id for id, _ in await stored(edge, "devices/7/telemetry")} >= set(acknowledged)


async def test_a_log_server_whose_memory_is_full(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server()
    with redis_client.Redis.from_url(server.url) as admin:
        async with running_edge(server.url) as edge, httpx.AsyncClient(base_url=edge.http, headers=bearer()) as http:
            path = "/topics/devices/7/telemetry"
            first = await http.post(path, json=1)
            step("its memory is full: 507, and when to come back")
            admin.config_set("maxmemory", "1")
            told = problem(await http.post(path, json=2), 507, "storage_full")
            assert told["retry_after"] > 0
            step("readers go on")
            assert [id for id, _ in await stored(edge, "devices/7/telemetry")] == [first.json()["id"]]
            step("there is room again: the next publish is the next event")
            admin.config_set("maxmemory", "0")
            again = await http.post(path, json=3)
            assert again.json()["offset"] == first.json()["offset"] + 1


async def test_a_page_of_an_allowed_origin_may_read_the_answers(log_server: str) -> None:
    page = {"Origin": "https://ours.example"}
    async with running_edge(log_server, origins=["https://ours.example"]) as edge, httpx.AsyncClient() as http:
        asks = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        step("the browser asks before it sends a token")
        before = await http.options(f"{edge.http}/topics/try/x", headers=asks)
        assert before.status_code == 200
        assert "authorization" in before.headers["access-control-allow-headers"]
        step("and may show the answer to the page")
        answer = await http.post(f"{edge.http}/topics/try/x", content=b"x", headers={**page, **bearer("alice")})
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == page["Origin"]
        evil = await http.options(f"{edge.http}/topics/try/x", headers={**asks, "Origin": "https://evil.example"})
        assert evil.status_code == 400
        assert "access-control-allow-origin" not in evil.headers
