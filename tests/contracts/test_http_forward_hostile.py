"""What a hostile client says to an edge before services: nothing of it becomes a second request, or another path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway import limits
from gateway.adapters import embedded
from tests.contracts.http_door_open import HANG, problem
from tests.contracts.routes_open import Upstream, edge, saying, upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"Host: edge.example\r\n"


SMUGGLED = {
    "two lengths of two kinds": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    "the same, the other way": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /x",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 30\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    "a list of lengths": b"Content-Length: 0, 30\r\n\r\n",
    "a length with a sign": b"Content-Length: +5\r\n\r\nhello",
    "a length that is none": b"Content-Length: 5x\r\n\r\nhello",
    "a coding nobody knows": b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a coding behind chunked": b"Transfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a coding before chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a bare CR": b"X-A: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare CR that ends the head": b"X-A: a\r\r\nGET /admin HTTP/1.1\r\n\r\n",
    "a NUL": b"X-A: a\x00b\r\n\r\n",
    "a folded line": b"X-A: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a name with a space": b"X A: a\r\n\r\n",
    "a chunk of a size that is none": b"Transfer-Encoding: chunked\r\n\r\n5;\r\nhello\r\nzz\r\n\r\n",
    "a huge head": b"X-A: " + b"a" * limits.HEAD_BYTES + b"\r\n\r\n",
}


@pytest.mark.parametrize("what", SMUGGLED)
async def test_a_request_with_two_readings_never_becomes_two(what: str) -> None:
    """Refused, or passed on as the one request that it is; what it hides is never a request of its own."""

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await one.head(reader)
            writer.write(OK)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        said = await door.raw(b"POST /shop/orders/ HTTP/1.1\r\n" + HEAD + SMUGGLED[what], until=b"\r\n\r\n")
        assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 408", b"HTTP/1.1 200"))
        assert one.heard.count(b"HTTP/1.1") <= 1, one.heard
        assert b"/admin" not in one.heard
        heard = dict(one.headers)
        assert len({"content-length", "transfer-encoding"} & heard.keys()) <= 1
        assert not any(set("\r\n\0") & set(value) for value in heard.values())
        if said.startswith(b"HTTP/1.1 200"):
            assert what in ("a folded line",), "what is passed on has one reading"


@pytest.mark.parametrize(
    "path",
    [
        "/shop/orders/../stock/",
        "/shop/orders/..",
        "/shop/orders/.",
        "/shop/orders/%2e%2e/stock/",
        "/shop/orders/%2E./stock",
        "/shop/orders/.%2e",
        "/shop/orders/..%2fstock",
        "/shop/orders/%2e%2e%2fstock",
        "/shop/orders/a%2fb",
        "/shop/orders/a%5c..%5cb",
        "/shop/orders/a\\..\\b",
        "/shop/orders//stock",
        "/shop//orders/",
        "//shop/orders/",
        "/shop/orders/%00",
        "/shop/orders/%0d%0aX-A:%20b",
        "/shop/orders/%ff",
        "/shop/%6frders/",
        "/shop%2forders/",
        "/shop/stock/../orders/",
        "/topics/../shop/orders/",
    ],
)
async def test_no_path_leaves_its_service_or_has_two_readings(path: str) -> None:
    async with upstream(saying(OK)) as one, edge(orders=one.url, stock=one.url) as door:
        said = await door.raw(f"GET {path} HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
        assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 405")), said
        assert not one.heard


async def test_a_whole_url_as_target_leads_nowhere_else() -> None:
    async with upstream(saying(OK)) as one, edge(orders=one.url) as door:
        await door.raw(b"GET http://evil.example/shop/orders/x HTTP/1.1\r\n" + HEAD + b"\r\n", until=b"ok")
        assert one.heard.startswith(b"GET /shop/orders/x HTTP/1.1\r\n")
        for line in (b"CONNECT evil.example:80", b"TRACE /shop/orders/", b"BREW /shop/orders/"):
            said = await door.raw(line + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
            assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404")), said
        assert one.connections == 1


@pytest.mark.parametrize(
    "said",
    [
        b"GET /shop/orders/?q=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /shop/orders/?q=a\tb HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\nHost: \xff\xfe/..\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.0\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\nHost: x\r\nX-A: \xff\xfe\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\nHost: x\r\nVia: \xff\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\nHost: x\r\nConnection: host, via, x-forwarded-for, content-length\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\nHost: x\r\nConnection: " + b"a," * 1_000 + b"\r\n\r\n",
        b"GET /shop/orders/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /shop/orders/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999\r\n\r\n",
    ],
)
async def test_strange_requests_are_nobodys_mistake(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with upstream(saying(OK)) as one, edge(orders=one.url) as door:
        told = await door.raw(said, until=b"\r\n\r\n")
        assert told.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4")), told
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        if one.heard:
            heard = [name for name, _ in one.headers]
            assert (heard.count("host"), heard.count("via"), heard.count("x-forwarded-for")) == (1, 1, 1)


async def test_an_upgrade_is_not_forwarded() -> None:
    async with upstream(saying(OK)) as one, edge(orders=one.url) as door:
        said = b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
        await door.raw(b"GET /shop/orders/ HTTP/1.1\r\n" + HEAD + said, until=b"ok")
        assert not {"upgrade", "connection"} & dict(one.headers).keys()


async def test_a_request_that_comes_back_ends() -> None:
    port = embedded.free_port()
    async with edge(orders=f"http://127.0.0.1:{port}") as door:
        told = await door.http.get("/shop/orders/", headers={"Via": "1.0 a, 1.1 topic-gateway"})
        problem(told, 508, "loop")


async def test_a_huge_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROUTE_BODY_BYTES", 1_000)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        await one.until_gone(reader)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        problem(await door.http.post("/shop/orders/", content=b"x" * 1_001), 413, "too_large")
        assert not one.connections
        problem(await door.http.post("/shop/orders/", content=endless()), 413, "too_large")
        async with asyncio.timeout(HANG):
            await one.gone.wait()
        assert not one.heard.endswith(b"0\r\n\r\n"), "a body that was cut off must not look whole"


async def test_a_slow_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_WITHIN", 0.2)

    async def speaks(one: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.head(reader)
        await one.until_gone(reader)

    async with upstream(speaks) as one, edge(orders=one.url) as door:
        said = await door.raw(b"POST /shop/orders/ HTTP/1.1\r\n" + HEAD + b"Content-Length: 9\r\n\r\nx")
        assert said.startswith(b"HTTP/1.1 408")
        async with asyncio.timeout(HANG):
            await one.gone.wait()
