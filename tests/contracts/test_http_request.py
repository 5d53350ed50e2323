"""A publish that waits, at the HTTP door: what is asked, what is answered, and who went."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.event import Publication
from gateway.errors import GatewayError, KeyReused, NoReply, RequestFailed, RequestRejected, Unavailable
from tests.contracts.http_door_open import HANG, opened, problem
from tests.servers import eventually


async def test_the_reply_comes_as_it_is() -> None:
    async with opened() as door:
        headers = {"Idempotency-Key": "k", "Content-Type": "a/b", "Authorization": "Bearer t"}
        answer = await door.http.post("/topics/a/b?wait=500ms", content=b"x", headers=headers)
        assert (answer.status_code, answer.content) == (200, b'{"a": 1}')
        assert answer.headers["content-type"] == "application/json"
        assert (answer.headers["event-id"], answer.headers["cache-control"]) == ("new", "no-store")
        assert door.api.published == [Publication("a/b", b"x", "http", type="a/b", idempotency="k")]
        assert door.api.waits == [0.5]


@pytest.mark.parametrize("wait", ["", "5", "5 s", "-1s", "1.5s", "5S", "soon", "31s", "1m", "7d", "1s&wait=1s"])
async def test_a_wait_that_cannot_be_waited(wait: str) -> None:
    async with opened() as door:
        told = problem(await door.http.post(f"/topics/a?wait={wait}", content=b"x"), 400, "bad_request")
        assert "wait" in told["detail"]
        assert door.api.published == []


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (RequestRejected("expired: x", "y", "e-1", "expired"), 422, "expired", None),
        (RequestFailed("x", "y", "e-1", "crash_loop"), 502, "crash_loop", None),
        (NoReply("x", "y", "e-1"), 504, "no_reply", "1"),
    ],
)
async def test_no_good_reply(error: RequestFailed, status: int, code: str, retry: str | None) -> None:
    async with opened() as door:
        door.api.fails = error
        answer = await door.http.post("/topics/a?wait=1s", content=b"x")
        told = problem(answer, status, code)
        assert told["event_id"] == answer.headers["event-id"] == "e-1"
        assert told["retryable"] is (retry is not None)
        assert answer.headers.get("retry-after") == retry
        assert door.api.refusals == [error]


@pytest.mark.parametrize("error", [KeyReused("x"), Unavailable("x")])
async def test_what_is_refused_is_refused_as_without_waiting(error: GatewayError) -> None:
    async with opened() as door:
        door.api.fails = error
        told = problem(await door.http.post("/topics/a?wait=1s", content=b"x"), error.status, error.code)
        assert "event_id" not in told


@pytest.mark.parametrize("body", [b"", b"x", b"x" * 60_000])
async def test_who_goes_is_not_waited_for(body: bytes) -> None:
    async with opened() as door:
        door.api.reply = None
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"POST /topics/a?wait=30s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await eventually(lambda: door.api.waits)
        async with asyncio.timeout(HANG):
            assert not door.api.ended.is_set()
            writer.transport.abort()
            await door.api.ended.wait()
