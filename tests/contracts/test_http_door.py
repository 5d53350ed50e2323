"""The HTTP door before any `http.Api`: what is sent arrives unchanged, or hears in problem+json why not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import string
import sys
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import limits
from gateway.adapters.listening import listen
from gateway.core.event import Publication
from gateway.errors import (
    BadTopic,
    Busy,
    Denied,
    GatewayError,
    KeyReused,
    LimitReached,
    NotDeclared,
    StorageFull,
    TokenExpired,
    TooLarge,
    Unavailable,
)
from tests.contracts.http_door_open import HANG, opened, problem

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

# --- what arrives ---


@pytest.mark.parametrize(
    ("path", "topic"),
    [
        ("try/s%C3%BC%C3%9F", "try/süß"),
        ("try%2Fa%2Fb", "try/a/b"),
        ("try/a%20b%3F%25", "try/a b?%"),
        ("try/news%2342", "try/news#42"),
        ("try//", "try//"),
        ("try/x?topic=try/y", "try/x"),
        ("try/+plus", "try/+plus"),
        ("try/%2525", "try/%25"),
        ("", ""),
    ],
)
async def test_a_topic_in_a_path_is_percent_encoded(path: str, topic: str) -> None:
    async with opened() as door:
        answer = await door.http.post(f"/topics/{path}", content=b"x")
        assert (answer.status_code, answer.json()["topic"]) == (201, topic)
        assert door.api.published[0].topic == topic


async def test_of_two_readings_of_a_path_the_suffix_wins() -> None:
    async with opened() as door:
        assert (await door.http.head("/topics/a/events/events")).status_code == 200
        assert (await door.http.head("/topics/a%2Fevents")).status_code == 200
        assert [filter for _, filter, _ in door.api.watched] == ["a/events", "a"]


PRINTABLE = st.characters(categories=("L", "N", "P", "S"))


@given(
    topic=st.text(PRINTABLE, min_size=1, max_size=30),
    body=st.binary(max_size=200),
    id=st.text(string.ascii_letters + string.digits + "-_.:", max_size=40),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_sent_arrives_unchanged(topic: str, body: bytes, id: str) -> None:
    async def send() -> Publication:
        async with opened() as door:
            headers = {"Event-Id": id, "Idempotency-Key": id, "Content-Type": "a/b", "Traceparent": TRACE}
            answer = await door.http.post(f"/topics/{quote(topic, safe='')}", content=body, headers=headers)
            assert answer.status_code == 201, answer.text
            return door.api.published[0]

    expected = Publication(topic, body, "http", type="a/b", id=id, idempotency=id, traceparent=TRACE)
    assert asyncio.run(send()) == expected


@pytest.mark.parametrize("traces", [["00-1"], [TRACE.upper()], [TRACE, TRACE], [TRACE, "x"]])
async def test_a_trace_that_cannot_be_followed_is_dropped_not_refused(traces: list[str]) -> None:
    async with opened() as door:
        headers = [("Traceparent", trace) for trace in traces]
        assert (await door.http.post("/topics/try/x", content=b"1", headers=headers)).status_code == 201
        assert door.api.published[0].traceparent == ""


@pytest.mark.parametrize("path", ["try/%FF", "try/%C3", "try/%ED%A0%80", "try/%0A", "try/x%0A", "try/%00", "%0D/x"])
async def test_two_paths_are_never_one_topic(path: str) -> None:
    async with opened() as door:
        problem(await door.http.post(f"/topics/{path}", content=b"1"), 400, "bad_topic")
        # A line break within matches no route at all.
        assert (await door.http.get(f"/topics/{path}/events")).status_code in (400, 404)
        assert (door.api.published, door.api.watched) == ([], [])


# --- what is answered ---


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (BadTopic("x"), 400, None),
        (TokenExpired("x"), 401, None),
        (Denied("x"), 403, None),
        (NotDeclared("x"), 404, None),
        (TooLarge("x"), 413, None),
        (KeyReused("x"), 422, None),
        (LimitReached("x"), 429, None),
        (Busy("x"), 429, "1"),
        (Unavailable("x", retry_after=0.2), 503, "1"),
        (Unavailable("x", retry_after=7.6), 503, "8"),
        (StorageFull("x"), 507, "1"),
    ],
)
async def test_every_error_is_told_as_a_problem(error: GatewayError, status: int, retry: str | None) -> None:
    async with opened() as door:
        door.api.fails = error
        answer = await door.http.post("/topics/a", content=b"1")
        told = problem(answer, status, error.code)
        assert told["retryable"] is error.retry
        assert answer.headers.get("retry-after") == retry
        assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


async def test_a_mistake_of_ours_says_nothing_of_its_insides() -> None:
    async with opened() as door:
        door.api.fails = RuntimeError("a secret")
        answer = await door.http.post("/topics/a", content=b"1")
        problem(answer, 500, "internal")
        assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/favicon.ico", 404),
        ("POST", "/topics", 404),
        ("GET", "/livez/", 404),
        ("GET", "/topics/try/x", 405),
        ("DELETE", "/topics/try/x", 405),
        ("OPTIONS", "/topics/try/x", 405),
        ("POST", "/livez", 405),
        ("TRACE", "/livez", 405),
        ("GET", "/connection/websocket", 404),
        ("GET", "/%2e%2e/etc/passwd", 404),
    ],
)
async def test_unknown_paths_and_methods(method: str, path: str, status: int) -> None:
    async with opened() as door:
        answer = await door.http.request(method, path, headers={"Host": "evil.example"}, follow_redirects=False)
        assert f"{method} " in problem(answer, status, "no_route")["detail"]
        assert ("allow" in answer.headers) is (status == 405)
        assert "evil" not in str(answer.headers)


async def test_a_page_of_another_origin_is_refused() -> None:
    async with opened() as door:
        for method, path in [("POST", "/topics/a"), ("GET", "/topics/a/events")]:
            answer = await door.http.request(method, path, headers={"Origin": "https://evil.example"})
            problem(answer, 403, "denied")
        assert (door.api.published, door.api.watched) == ([], [])


async def test_health() -> None:
    async with opened() as door:
        assert (await door.http.get("/readyz")).text == "ok\n"
        door.api.reasons = ["log: away", "draining"]
        answer = await door.http.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "log: away\ndraining\n")
        assert (await door.http.get("/livez")).status_code == 200
        assert (await door.http.get("/metrics")).headers["content-type"] == "text/plain; version=0.0.4"


# --- what is bounded ---


async def test_bodies_are_bounded() -> None:
    async with opened() as door:
        assert (await door.http.post("/topics/a", content=b"x" * limits.PAYLOAD_BYTES)).status_code == 201
        problem(await door.http.post("/topics/a", content=b"x" * (limits.PAYLOAD_BYTES + 1)), 413, "too_large")

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b"x" * 4_096

        problem(await door.http.post("/topics/a", content=endless()), 413, "too_large")
        # What is announced too large is refused before it is sent.
        head = b"POST /topics/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
        assert (await door.raw(head)).startswith(b"HTTP/1.1 413 ")
        assert len(door.api.published) == 1


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_WITHIN", 0.2)
    async with opened() as door:
        said = await door.raw(b"POST /topics/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell")
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b"urn:topic-gateway:slow_body" in said


GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("before", "sent"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (b"", b"POST /topics/try/x HT"),
        (b"", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "),
        (GET, b"\r\n"),
        (GET, b"P"),
        (GET, b"GET /livez HTTP/1.1\r\nX-Slow: "),
    ],
)
async def test_a_head_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, before: bytes, sent: bytes
) -> None:
    monkeypatch.setattr(limits, "HEAD_WITHIN", 0.3)
    async with opened() as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        async with asyncio.timeout(HANG):
            if before:
                writer.write(before)
                assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
            writer.write(sent)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(-1) == b""
        writer.transport.abort()


async def test_a_head_that_comes_in_pieces_is_served() -> None:
    async with opened() as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        for _ in range(2):
            for piece in (b"GET /li", b"vez HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n"):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            async with asyncio.timeout(HANG):
                assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
        writer.transport.abort()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nX: " + b"x" * (limits.HEAD_BYTES + 1) + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * (limits.HEAD_BYTES // 4) + b"\r\n",
        b"GET /" + b"x" * (limits.HEAD_BYTES + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"x" * (limits.HEAD_BYTES + 1),
    ],
)
async def test_a_head_that_is_too_large_is_refused(head: bytes) -> None:
    async with opened() as door:
        said = await door.raw(head)
        assert said.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert b"urn:topic-gateway:head_too_large" in said


async def test_a_head_below_the_bound_passes_with_any_body_behind_it() -> None:
    async with opened() as door:
        headers = {"X": "x" * (limits.HEAD_BYTES - 1_000)}
        answer = await door.http.post("/topics/a", content=b"x" * limits.PAYLOAD_BYTES, headers=headers)
        assert answer.status_code == 201
        head = b"POST /topics/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % limits.PAYLOAD_BYTES
        assert (await door.raw(head + b"x" * limits.PAYLOAD_BYTES)).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        # Two lengths of one body are an attack on a proxy before us (RFC 9112, 6.3).
        b"POST /topics/a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /topics/a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /topics/a HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /topics/a HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused(garbage: bytes) -> None:
    async with opened() as door:
        said = await door.raw(garbage)
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b"urn:topic-gateway:bad_request" in said
        assert door.api.published == []


async def test_the_send_buffer_of_every_connection_is_bounded() -> None:
    sock = listen("127.0.0.1", 0)
    try:
        with socket.create_connection(sock.getsockname()), sock.accept()[0] as accepted:
            # Linux keeps twice what was asked, for its own book-keeping (socket(7)).
            asked = limits.SOCKET_SEND_BYTES * (2 if sys.platform == "linux" else 1)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == asked
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", sock.getsockname()[1])
    finally:
        sock.close()


# --- streams ---


async def test_a_stream_ends_with_its_watcher() -> None:
    async with opened() as door:
        async with door.http.stream("GET", "/topics/a/events", headers={"Last-Event-ID": "c"}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            async for _ in answer.aiter_bytes():
                break
        async with asyncio.timeout(HANG):
            await door.api.ended.wait()
        assert door.api.watched == [("", "a", "c")]


async def test_a_stream_ends_with_a_watcher_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_WITHIN", 0.3)
    async with opened() as door:

        async def flood() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"data: " + b"x" * 60_000 + b"\n\n"
            finally:
                door.api.ended.set()

        monkeypatch.setattr(door.api, "_endless", flood)
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=1_024)
        writer.write(b"GET /topics/a/events HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(HANG):
            await door.api.ended.wait()
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(65_536):
                    pass
        writer.transport.abort()


async def test_streams_end_with_the_server() -> None:
    reader = writer = None
    async with opened() as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET /topics/a/events HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(HANG):
            await reader.readuntil(b"data: 1\n\n")
    async with asyncio.timeout(HANG):
        assert (await reader.read(-1)).endswith(b"0\r\n\r\n"), "a last chunk (RFC 9112, 7.1): no error"
    writer.close()
