"""One origin: an edge before services, and everything hostile between a client and them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from gateway import limits
from gateway.adapters import embedded
from gateway.web import answer
from tests.contracts.http_door_open import HANG, problem
from tests.contracts.routes_open import Upstream, edge, saying, served, upstream
from tests.gateways import token
from tests.servers import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"Host: edge.example\r\n"


async def show(request: Request) -> Response:
    return answer(
        {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "query": request.scope["query_string"].decode(),
            "headers": [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw],
            "body": (await request.body()).decode(),
            "who": str(request.state.principal),
        }
    )


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
SHOW: list[BaseRoute] = [Route("/", show, methods=METHODS), Route("/{rest:path}", show, methods=METHODS)]


# --- what arrives ---


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_arrives_as_it_was_sent(method: str) -> None:
    async with served(SHOW) as one, edge(orders=one.url) as door:
        how = {"headers": {"Authorization": f"Bearer {token('alice')}"}, "content": b"a body"}
        path = "/shop/orders/a%20b/%C3%BC;x=1/?q=%2F..&q=2"
        told = (await door.http.request(method, path, **how)).json()  # type: ignore[arg-type]  # one dict for both
        assert (told["method"], told["body"], told["who"]) == (method, "a body", "user:alice")
        assert (told["path"], told["query"]) == ("/shop/orders/a%20b/%C3%BC;x=1/", "q=%2F..&q=2")


async def test_both_forms_of_the_first_path_arrive() -> None:
    async with served(SHOW) as one, edge(orders=one.url) as door:
        for path in ("/shop/orders", "/shop/orders/"):
            assert (await door.http.get(path)).json()["path"] == path
        assert (await door.http.head("/shop/orders")).headers["content-length"]
        assert (await door.http.get("/livez")).text == "ok\n"
        for path in ("/shop/ordersx", "/shop/stock/", "/shop", "/shop/"):
            problem(await door.http.get(path), 404, "no_route")


async def test_headers_of_the_connection_stay_behind_and_ours_are_true() -> None:
    async with served(SHOW) as one, edge(orders=one.url) as door:
        said = {
            "Host": "edge.example:99",
            "Connection": "keep-alive, X-Secret-Hop",
            "X-Secret-Hop": "1",
            "Keep-Alive": "timeout=9",
            "Proxy-Authorization": "Basic x",
            "TE": "trailers",
            "X-Forwarded-For": "1.2.3.4",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-User": "root",
            "Forwarded": "for=1.2.3.4",
            "X-Real-IP": "1.2.3.4",
            "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "Cookie": "a=b",
            "If-None-Match": '"x"',
        }
        headers = (await door.http.get("/shop/orders/", headers=said)).json()["headers"]
        known = dict(headers)
        assert len(known) == len(headers)
        assert not known.keys() & {
            "connection",
            "x-secret-hop",
            "keep-alive",
            "proxy-authorization",
            "te",
            "forwarded",
            "x-real-ip",
            "x-forwarded-user",
            "transfer-encoding",
            "content-length",
        }
        assert known["x-forwarded-for"] == "127.0.0.1"
        assert known["x-forwarded-proto"] == "http"
        assert known["x-forwarded-host"] == "edge.example:99"
        assert known["host"] == one.url.removeprefix("http://")
        assert known["traceparent"] == said["Traceparent"]
        assert (known["cookie"], known["if-none-match"]) == ("a=b", '"x"')
        assert known["via"] == "1.1 topic-gateway"


async def test_an_answer_comes_back_as_it_was_given() -> None:
    async def tell(request: Request) -> Response:
        given = Response(b"\x00\xff" * 3, 418, {"etag": '"1"', "connection": "x-hop", "x-hop": "1", "x-own": "ü"})
        given.set_cookie("a", "1")
        given.set_cookie("b", "2")
        given.headers["access-control-allow-origin"] = "*"
        return given

    async def empty(request: Request) -> Response:
        return Response(status_code=204)

    async with served([Route("/", tell), Route("/empty", empty)]) as one, edge(orders=one.url) as door:
        told = await door.http.get("/shop/orders/")
        assert (told.status_code, told.content, told.headers["etag"]) == (418, b"\x00\xff" * 3, '"1"')
        assert told.headers.get_list("set-cookie") == ["a=1; Path=/; SameSite=lax", "b=2; Path=/; SameSite=lax"]
        assert not told.headers.keys() & {"x-hop", "access-control-allow-origin"}
        assert (await door.http.get("/shop/orders/", headers={"Accept": "x"})).request.headers.get("cookie") is not None
        async with httpx.AsyncClient() as another:
            seen = await another.get(f"http://127.0.0.1:{door.port}/shop/orders/empty")
            assert (seen.status_code, seen.content) == (204, b"")


async def test_nobody_gets_the_cookies_of_another() -> None:
    async def count(request: Request) -> Response:
        given = Response(request.headers.get("cookie", "none"))
        given.set_cookie("session", "alice")
        return given

    async with served([Route("/", count)]) as one, edge(orders=one.url) as door:
        for _ in range(2):
            async with httpx.AsyncClient() as somebody:
                assert (await somebody.get(f"http://127.0.0.1:{door.port}/shop/orders/")).text == "none"


async def test_a_redirect_is_passed_on_and_not_followed() -> None:
    away = saying(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")
    async with upstream(away) as one, edge(orders=one.url) as door:
        told = await door.http.get("/shop/orders/")
        assert (told.status_code, told.headers["location"], one.connections) == (302, "http://127.0.0.1:9/", 1)


async def test_bodies_stream_both_ways() -> None:
    heard, go = asyncio.Event(), asyncio.Event()

    async def echo(request: Request) -> Response:
        said = [chunk async for chunk in _noting(request.stream(), heard)]

        async def parts() -> AsyncIterator[bytes]:
            yield b"".join(said).upper()
            await go.wait()
            yield b"END"

        return StreamingResponse(parts())

    async with served([Route("/", echo, methods=["POST"])]) as one, edge(orders=one.url) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        try:
            async with asyncio.timeout(HANG):
                writer.write(b"POST /shop/orders/ HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
                writer.write(b"3\r\nabc\r\n")
                await heard.wait()
                writer.write(b"2\r\nde\r\n0\r\n\r\n")
                await reader.readuntil(b"ABCDE\r\n")
                go.set()
                await reader.readuntil(b"END\r\n0\r\n\r\n")
        finally:
            writer.transport.abort()


async def _noting(chunks: AsyncIterator[bytes], heard: asyncio.Event) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        heard.set()
        yield chunk


async def test_pages_are_judged_as_for_the_edge_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(SHOW) as one, edge(orders=one.url) as door:
        told = await door.http.get("/shop/orders/", headers={"Origin": "http://evil.example"})
        problem(told, 403, "denied")
        assert not one.answered
        monkeypatch.setattr(door.api, "allows", lambda origin, host: origin == "http://good.example")
        good = {"Origin": "http://good.example"}
        told = await door.http.get("/shop/orders/", headers=good)
        assert told.headers["access-control-allow-origin"] == "http://good.example"
        assert "origin" not in dict(told.json()["headers"])
        asked = {**good, "Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
        assert (await door.http.options("/shop/orders/", headers=asked)).is_success


# --- services that are away, slow or wrong ---


async def test_a_service_that_is_away_is_told_so_and_to_come_back(caplog: pytest.LogCaptureFixture) -> None:
    port = embedded.free_port()
    async with edge(orders=f"http://127.0.0.1:{port}") as door:
        for _ in range(3):
            told = await door.http.get("/shop/orders/")
            assert problem(told, 503, "unavailable")["retry_after"] == 1.0
            assert told.headers["retry-after"] == "1"
        assert caplog.text.count("shop.orders does not answer") == 1
        assert [error.code for error in door.api.refusals] == ["unavailable"] * 3


async def test_a_slow_service_times_out_and_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARD_WITHIN", 0.2)
    monkeypatch.setattr(limits, "BODY_WITHIN", 0.1)

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        await one.until_gone(reader)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        problem(await door.http.get("/shop/orders/"), 504, "too_slow")
        async with asyncio.timeout(HANG):
            await one.gone.wait()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * limits.HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\nX-A: a\x7fb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_is_a_problem(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with upstream(saying(said)) as one, edge(orders=one.url) as door:
        problem(await door.http.get("/shop/orders/"), 502, "bad_answer")
        assert one.connections == 1, "nothing is asked twice by itself"
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
async def test_half_an_answer_never_looks_whole(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with upstream(saying(said)) as one, edge(orders=one.url) as door:
        with pytest.raises(httpx.RemoteProtocolError):
            await door.http.get("/shop/orders/")
        assert "broke off its answer" in caplog.text
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_both_framings_in_an_answer_are_read_as_one() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with upstream(saying(said)) as one, edge(orders=one.url) as door:
        told = await door.http.get("/shop/orders/")
        assert (told.text, told.headers.get("content-length")) == ("ok", None)


async def test_a_client_that_goes_away_takes_its_request_with_it() -> None:
    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        await one.until_gone(reader)

    async def begins(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await one.until_gone(reader)

    for way in (speaks, begins):
        async with upstream(way) as one, edge(orders=one.url) as door:
            _, writer = await asyncio.open_connection("127.0.0.1", door.port)
            writer.write(b"POST /shop/orders/ HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\n\r\n{}")
            async with asyncio.timeout(HANG):
                await one.asked.wait()
                writer.transport.abort()
                await one.gone.wait()


async def test_a_client_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_WITHIN", 0.3)

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 60_000)
                await writer.drain()
        finally:
            one.gone.set()

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=1_024)
        writer.write(b"GET /shop/orders/ HTTP/1.1\r\n" + HEAD + b"\r\n")
        async with asyncio.timeout(HANG):
            await one.gone.wait()
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(65_536):
                    pass
        writer.transport.abort()


async def test_a_slow_service_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORWARDS", 2)
    monkeypatch.setattr(limits, "FORWARD_WAIT", 0.1)

    async def hangs(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        await one.until_gone(reader)

    async with upstream(hangs) as slow, upstream(saying(OK)) as quick, edge(orders=slow.url, stock=quick.url) as door:
        waiting = [asyncio.create_task(door.http.get("/shop/orders/"), name=f"waits {n}") for n in range(2)]
        await eventually(lambda: slow.connections == 2)
        problem(await door.http.get("/shop/orders/"), 429, "busy")
        assert (await door.http.get("/shop/stock/")).text == "ok"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await eventually(slow.gone.is_set)


async def test_connections_are_used_again() -> None:
    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await one.head(reader)
            writer.write(OK)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        for _ in range(20):
            assert (await door.http.get("/shop/orders/")).text == "ok"
        assert one.connections == 1


async def test_a_service_says_its_own_no_in_its_own_words() -> None:
    async with served(SHOW) as one, edge(orders=one.url) as door:
        told = await door.http.get("/shop/orders/", headers={"Authorization": "Bearer x"})
        assert "base64url" in json.dumps(problem(told, 401, "bad_token"))
        assert limits.ROUTE_WITHIN < limits.FORWARD_WITHIN, "or the edge would speak first"
