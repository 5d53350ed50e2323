"""The connections of an edge to one service: used again where that is safe, shared in order, and never one too many."""

from __future__ import annotations

import asyncio
import ssl

import httpx
import pytest

from gateway import limits
from gateway.adapters import embedded
from gateway.adapters.http_connection import Connection
from gateway.adapters.http_pool import Connections, NoRoom, NotThere
from tests.contracts.http_door_open import HANG, problem
from tests.contracts.routes_open import Speaks, Upstream, edge, saying, upstream
from tests.servers import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
HEAD = b"Host: edge.example\r\n"


def each(*answers: bytes) -> Speaks:
    """Say these in turn, one for each request; after the last, close."""

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for said in answers:
            await one.head(reader)
            writer.write(said)
            await writer.drain()

    return speaks


def pool(url: str) -> Connections:
    return Connections(url, ssl.create_default_context())


# --- used again ---


async def test_whatever_has_a_clear_end_leaves_its_connection_for_the_next() -> None:
    answers = {
        "GET": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrail: x\r\n\r\n",
        "HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        "PUT": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        "DELETE": b"HTTP/1.1 204 No Content\r\n\r\n",
        "OPTIONS": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        "POST": OK,
    }
    async with upstream(each(*answers.values())) as one, edge(orders=one.url) as door:
        told = [await door.http.request(method, "/shop/orders/") for method in answers]
        assert [answer.status_code for answer in told] == [200, 200, 200, 204, 304, 200]
        assert [answer.text for answer in told] == ["ok", "", "ok", "", "", "ok"]
        assert told[1].headers["content-length"] == "1000"
        assert not {"link", "trail"} & {name for answer in told for name in answer.headers}
        assert one.connections == 1


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + POISON,
        OK + POISON[:20],
        OK + b"garbage",
    ],
)
async def test_whatever_has_not_takes_its_connection_with_it(said: bytes) -> None:
    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await one.head(reader)
            writer.write(said)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        assert [(await door.http.get("/shop/orders/")).text for _ in range(3)] == ["ok"] * 3
        assert one.connections == 3


async def test_an_answer_that_ends_with_its_connection_is_whole() -> None:
    async with upstream(saying(b"HTTP/1.1 200 OK\r\nX-Empty:\r\n\r\nto the end")) as one, edge(orders=one.url) as door:
        told = await door.http.get("/shop/orders/")
        assert (told.text, told.headers["x-empty"]) == ("to the end", "")


async def test_what_a_service_closed_while_idle_is_asked_nothing() -> None:
    async with upstream(saying(OK)) as one, edge(orders=one.url) as door:
        for _ in range(20):
            assert (await door.http.post("/shop/orders/", content=b"{}")).text == "ok"
        assert (one.connections, one.heard.count(b"POST ")) == (20, 20)


async def test_what_a_service_said_unasked_answers_nobody() -> None:
    go, gone = asyncio.Event(), asyncio.Event()

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        writer.write(OK)
        await go.wait()
        if one.connections == 1:
            writer.write(POISON)
            await one.until_gone(reader)
            gone.set()

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        assert (await door.http.get("/shop/orders/")).text == "ok"
        go.set()
        assert (await door.http.get("/shop/orders/")).text == "ok"
        async with asyncio.timeout(HANG):
            await gone.wait()


async def test_a_connection_that_ends_under_a_request_is_not_tried_twice() -> None:
    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        writer.write(OK)
        await one.head(reader)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        assert (await door.http.get("/shop/orders/")).text == "ok"
        problem(await door.http.get("/shop/orders/"), 502, "bad_answer")
        assert (one.connections, one.heard.count(b"GET ")) == (1, 2)


async def test_an_idle_connection_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARD_IDLE", 0.05)

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        writer.write(OK)
        await one.until_gone(reader)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        assert (await door.http.get("/shop/orders/")).text == "ok"
        async with asyncio.timeout(HANG):
            await one.gone.wait()
        assert (await door.http.get("/shop/orders/")).text == "ok"


# --- strange answers ---


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_with_two_readings_is_none(said: bytes) -> None:
    async with upstream(saying(said)) as one, edge(orders=one.url) as door:
        problem(await door.http.get("/shop/orders/"), 502, "bad_answer")
        assert one.connections == 1


async def test_trailers_without_end_are_cut() -> None:
    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrail: ")
        try:
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()
        finally:
            one.gone.set()

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        with pytest.raises(httpx.RemoteProtocolError):
            await door.http.get("/shop/orders/")
        async with asyncio.timeout(HANG):
            await one.gone.wait()


async def test_an_answer_before_the_end_of_its_request_is_heard_at_once() -> None:
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with upstream(each(early, OK)) as one, edge(orders=one.url) as door:
        for framing in (b"Content-Length: 9\r\n\r\n", b"Content-Length: 9\r\n\r\nhalf"):
            said = await door.raw(b"POST /shop/orders/ HTTP/1.1\r\n" + HEAD + framing, until=b"no")
            assert said.startswith(b"HTTP/1.1 413")
        assert one.connections == 2, "the rest of one request must not open another"


async def test_who_waits_to_be_asked_for_the_body_is_asked() -> None:
    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        assert await reader.readexactly(4) == b"body"
        writer.write(OK)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        said = b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        writer.write(b"POST /shop/orders/ HTTP/1.1\r\n" + HEAD + said)
        async with asyncio.timeout(HANG):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            await one.asked.wait()  # the head went ahead of its body
            writer.write(b"body")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.transport.abort()
        assert "expect" not in dict(one.headers)


# --- shared ---


async def test_a_hundred_clients_share_a_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARDS", 4)
    monkeypatch.setattr(limits, "FORWARD_WAIT", HANG)

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await one.head(reader)
            body = await reader.readexactly(3)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        asked = [door.http.post("/shop/orders/", content=b"%03d" % n) for n in range(100)]
        told = await asyncio.gather(*asked)
        assert [answer.text for answer in told] == [f"{n:03d}" for n in range(100)]
        assert one.connections <= 4


async def test_turns_come_in_order_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARDS", 1)
    got: list[int] = []

    async def waits(n: int) -> Connection:
        connection = await connections.take()
        got.append(n)
        return connection

    async with upstream(each()) as one:
        connections = pool(one.url)
        first = await connections.take()
        tasks = [asyncio.create_task(waits(n), name=f"waits {n}") for n in range(4)]
        await asyncio.sleep(0)  # each of them runs until it waits
        tasks[1].cancel()
        connections.give(first)
        for n in (0, 2):
            connections.give(await tasks[n])
        tasks[3].cancel()  # in the moment when its turn came
        await asyncio.wait(tasks)
        assert got == [0, 2]
        connections.give(await connections.take())
        connections.close()


async def test_who_goes_away_while_waiting_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARDS", 1)
    monkeypatch.setattr(limits, "FORWARD_WAIT", HANG)
    go = asyncio.Event()

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await one.head(reader)
            await go.wait()
            writer.write(OK)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        first = asyncio.create_task(door.http.get("/shop/orders/first"), name="first")
        async with asyncio.timeout(HANG):
            await one.asked.wait()
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET /shop/orders/gone HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert (await door.http.get("/livez")).text == "ok\n"  # what came before it has been read
        writer.transport.abort()
        assert (await door.http.get("/livez")).text == "ok\n"
        go.set()
        assert (await first).text == "ok"
        assert (await door.http.get("/shop/orders/next")).text == "ok"
        assert b"gone" not in one.heard
        assert one.connections == 1


async def test_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARDS", 1)
    monkeypatch.setattr(limits, "FORWARD_WAIT", 0.05)
    async with upstream(each()) as one:
        connections = pool(one.url)
        first = await connections.take()
        with pytest.raises(NoRoom):
            await connections.take()
        connections.give(first)
        connections.give(await connections.take())


async def test_a_service_that_is_away_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARDS", 1)
    connections = pool(f"http://127.0.0.1:{embedded.free_port()}")
    for _ in range(3):
        with pytest.raises(NotThere):
            await connections.take()


# --- neither side is read faster than the other reads ---


async def test_a_service_that_does_not_read_ends_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROUTE_BODY_BYTES", 1024**3)
    monkeypatch.setattr(limits, "STREAM_WITHIN", 0.3)
    go, said = asyncio.Event(), 0

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        await go.wait()

    async def says(writer: asyncio.StreamWriter) -> None:
        nonlocal said
        writer.write(b"POST /shop/orders/ HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % 1024**3)
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            said += 65_536

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        saying_on = asyncio.create_task(says(writer), name="says")
        async with asyncio.timeout(HANG):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 504")
        assert said < 50_000_000, "what a service does not take stays with the client"
        writer.transport.abort()
        go.set()
        saying_on.cancel()
        await asyncio.wait({saying_on})


async def test_what_a_client_does_not_read_stays_with_the_service() -> None:
    said, stuck = 0, asyncio.Event()

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        await one.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while said < 1_000_000_000:
            writer.write(b"x" * 100_000)
            said += 100_000
            try:
                async with asyncio.timeout(1.0):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await one.until_gone(reader)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        _, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=1_024)
        writer.write(b"GET /shop/orders/ HTTP/1.1\r\n" + HEAD + b"\r\n")
        await eventually(stuck.is_set)
        assert said < 50_000_000
        writer.transport.abort()
        async with asyncio.timeout(HANG):
            await one.gone.wait()
