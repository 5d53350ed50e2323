"""A service's own routes: who asks is known before they run, and no request is without bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from gateway import GatewayError, Service, limits
from gateway.adapters import http
from gateway.adapters.http_service import Hosted, check
from gateway.errors import Misconfigured
from gateway.web import Denied, answer, body, principal
from tests.contracts.http_door_open import HANG, Kept, problem
from tests.contracts.routes_open import GROUP, opened, served
from tests.gateways import token
from tests.servers import eventually


class Asked(msgspec.Struct):
    item: str
    count: int = 1


class SoldOut(GatewayError):
    """An item that is not there any more."""

    code = "sold_out"
    status = 409


async def who(request: Request) -> Response:
    return answer({"who": str(request.state.principal), "path": request.scope["path"]})


async def mine(request: Request) -> Response:
    return answer(str(principal(request, "user:{user}", "operator")))


async def place(request: Request) -> Response:
    asked = await body(request, Asked)
    if asked.item == "coffee":
        raise SoldOut("coffee is sold out", "order tea")
    return answer(asked, 202, {"location": "7"})


async def fails(request: Request) -> Response:
    raise {"denied": Denied("no", "ask"), "http": HTTPException(410, "gone"), "bug": ZeroDivisionError("x")}[
        request.path_params["how"]
    ]


def plain(request: Request) -> Response:
    return PlainTextResponse("from a thread")


ROUTES: list[BaseRoute] = [
    Route("/", who),
    Route("/users/{user}", mine, name="mine"),
    Route("/orders", place, methods=["POST"]),
    Route("/fails/{how}", fails),
    Mount("/more", routes=[Route("/who", who), Route("/plain", plain)]),
]


def bearing(jwt: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {jwt}"}


# --- who asks ---


async def test_a_route_is_below_application_and_service_with_and_without_a_last_slash() -> None:
    async with served(ROUTES) as one:
        for path in ("/shop/orders", "/shop/orders/", "/shop/orders/more/who"):
            told = (await one.http.get(path)).json()
            assert told == {"who": "anonymous", "path": path if path != "/shop/orders" else "/shop/orders/"}
        assert (await one.http.get("/shop/orders/more/plain")).text == "from a thread"
        assert (await one.http.get("/livez")).text == "ok\n"
        problem(await one.http.get("/shop/orders/nothing"), 404, "no_route")
        problem(await one.http.get("/shop/orders/orders"), 405, "no_route")
        problem(await one.http.get("/shop/ordersx"), 404, "no_route")


async def test_a_route_finds_the_paths_of_others() -> None:
    async def find(request: Request) -> Response:
        return answer(request.url_for("mine", user="alice").path)

    async with served([*ROUTES, Route("/find", find)]) as one:
        assert (await one.http.get("/shop/orders/find")).json() == "/shop/orders/users/alice"


async def test_routes_that_are_not_open_yet_are_away() -> None:
    api, hosted = Kept(), Hosted(GROUP)
    async with opened(http.health(api, *hosted.routes), api) as door:
        problem(await door.http.get("/shop/orders/"), 503, "unavailable")
        assert (await door.http.get("/livez")).is_success


async def test_a_strange_host_is_nobodys_mistake() -> None:
    async with served(ROUTES) as one:
        for path in ("/shop/orders/", "/shop/orders/nothing", "/shop/orders/fails/http"):
            said = await one.door.raw(f"GET {path} HTTP/1.1\r\nHost: [::1\r\n\r\n".encode())
            assert said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4")), said


async def test_a_route_knows_who_asks() -> None:
    async with served(ROUTES) as one:
        told = await one.http.get("/shop/orders/", headers=bearing(token("alice")))
        assert told.json()["who"] == "user:alice"
        assert (await one.http.get("/shop/orders/users/alice", headers=bearing(token("alice")))).json() == "user:alice"
        assert (
            await one.http.get("/shop/orders/users/alice", headers=bearing(token("root", kind="operator")))
        ).is_success
        problem(await one.http.get("/shop/orders/users/alice", headers=bearing(token("bob"))), 403, "denied")
        refused = await one.http.get("/shop/orders/users/alice")
        problem(refused, 401, "bad_token")
        assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Bearer x", "Basic dTpw", "Bearer", f"Bearer {token('alice')}x"])
async def test_a_bad_token_is_refused_before_the_route_runs(header: str) -> None:
    ran: list[object] = []

    async def run(request: Request) -> Response:
        ran.append(request)
        return Response()

    async with served([Route("/", run)]) as one:
        problem(await one.http.get("/shop/orders/", headers={"Authorization": header}), 401, "bad_token")
        assert not ran


async def test_a_page_that_comes_past_the_edge_is_refused() -> None:
    async with served(ROUTES) as one:
        answered = await one.http.get("/shop/orders/", headers={"Origin": "http://evil.example"})
        problem(answered, 403, "denied")


async def test_what_the_process_gives_stands_in_the_state() -> None:
    async def see(request: Request) -> Response:
        return answer(request.state.service)

    async with served([Route("/", see)], {"service": ["a", "database"]}) as one:
        assert (await one.http.get("/shop/orders/")).json() == ["a", "database"]


# --- what is asked and answered ---


async def test_a_body_is_what_the_route_takes_or_a_problem() -> None:
    async with served(ROUTES) as one:
        taken = await one.http.post("/shop/orders/orders", content=b'{"item": "tea"}')
        assert (taken.status_code, taken.json(), taken.headers["location"]) == (202, {"item": "tea", "count": 1}, "7")
        for wrong in (b"", b"{", b'{"item": 7}', b'{"item": "a", "item": "b"}', b'{"count": 1}'):
            problem(await one.http.post("/shop/orders/orders", content=wrong), 422, "bad_payload")
        problem(await one.http.post("/shop/orders/orders", content=b'{"item": "coffee"}'), 409, "sold_out")


async def test_what_a_route_raises_is_told_as_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    async with served(ROUTES) as one:
        problem(await one.http.get("/shop/orders/fails/denied"), 403, "denied")
        assert "gone" in problem(await one.http.get("/shop/orders/fails/http"), 410, "refused")["detail"]
        assert "ZeroDivisionError" not in caplog.text
        assert "mistake" in problem(await one.http.get("/shop/orders/fails/bug"), 500, "internal")["detail"]
        assert "ZeroDivisionError" in caplog.text
        assert one.answered == [403, 410, 500]


@pytest.mark.parametrize(
    "path",
    [
        "//x",
        "/./x",
        "/x/..",
        "/%2e%2e/x",
        "/x%2Fy",
        "/x%5cy",
        "/x\\y",
        "/%00",
        "/x%0A",
        "/%FF",
        "/a//b",
        "/..%2f",
        f"/{10**310}",
    ],
)
async def test_a_path_has_one_reading(path: str) -> None:
    async with served([Route("/{rest:path}", who)]) as one:
        said = await one.door.raw(f"GET /shop/orders{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b"400 Bad Request" in said
        assert b"bad_path" in said


async def test_routes_that_cannot_be_served_are_found() -> None:
    async def talk(socket: WebSocket) -> None: ...

    with pytest.raises(Misconfigured, match=r"'shop\.orders': WebSocketRoute.* is no route"):
        check(Service("orders", routes=[WebSocketRoute("/", talk)]), GROUP)
    with pytest.raises(Misconfigured, match="is no route"):
        check(Service("orders", routes=["/"]), GROUP)


# --- bounds ---


async def test_a_large_body_is_refused_announced_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROUTE_BODY_BYTES", 1_000)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    async with served(ROUTES) as one:
        problem(await one.http.post("/shop/orders/orders", content=b"x" * 1_001), 413, "too_large")
        problem(await one.http.post("/shop/orders/orders", content=endless()), 413, "too_large")


async def test_a_slow_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_WITHIN", 0.2)
    async with served(ROUTES) as one:
        head = b"POST /shop/orders/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
        said = await one.door.raw(head)
        assert b"408 Request Timeout" in said
        assert b"slow_body" in said


async def test_a_route_that_takes_too_long_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROUTE_WITHIN", 0.2)
    monkeypatch.setattr(limits, "BODY_WITHIN", 0.2)
    cancelled = asyncio.Event()

    async def hang(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response()

    async def own(request: Request) -> Response:
        raise TimeoutError

    async def later(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a"
            await asyncio.sleep(0.6)
            yield b"b"

        return StreamingResponse(parts())

    async with served([Route("/", hang), Route("/own", own), Route("/later", later)]) as one:
        problem(await one.http.get("/shop/orders/"), 504, "too_slow")
        assert cancelled.is_set()
        problem(await one.http.get("/shop/orders/own"), 500, "internal")
        assert (await one.http.get("/shop/orders/later")).text == "ab", "an answer that has begun may take its time"


async def test_requests_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROUTES_AT_ONCE", 1)
    go = asyncio.Event()

    async def wait(request: Request) -> Response:
        await go.wait()
        return Response("done")

    async with served([Route("/", wait)]) as one:
        first = asyncio.create_task(one.http.get("/shop/orders/"), name="first")
        await eventually(lambda: one.hosted.running == 1)
        refused = await one.http.get("/shop/orders/")
        problem(refused, 429, "busy")
        assert refused.headers["retry-after"] == "1"
        go.set()
        assert (await first).text == "done"


# --- the end ---


async def test_what_runs_is_finished_and_nothing_more_is_taken() -> None:
    go = asyncio.Event()

    async def wait(request: Request) -> Response:
        await go.wait()
        return Response("done")

    async with served([Route("/", wait)]) as one:
        first = asyncio.create_task(one.http.get("/shop/orders/"), name="first")
        await eventually(lambda: one.hosted.running == 1)
        draining = asyncio.create_task(one.hosted.drain(), name="drain")
        await eventually(one.hosted.unready)
        refused = await one.http.get("/shop/orders/")
        assert problem(refused, 503, "unavailable")["retry_after"] == 1.0
        assert refused.headers["connection"] == "close"
        assert (await one.http.get("/livez")).is_success
        go.set()
        await draining
        assert (await first).text == "done"


async def test_what_does_not_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRAIN_WITHIN", 0.2)

    async def hang(request: Request) -> Response:
        await asyncio.Event().wait()
        return Response()

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a"
            await asyncio.Event().wait()

        return StreamingResponse(parts())

    async with served([Route("/", hang), Route("/stream", stream)]) as one:
        first = asyncio.create_task(one.http.get("/shop/orders/"), name="first")
        second = asyncio.create_task(
            one.door.raw(b"GET /shop/orders/stream HTTP/1.1\r\nHost: x\r\n\r\n"), name="second"
        )
        await eventually(lambda: one.hosted.running == 2)
        async with asyncio.timeout(HANG):
            await one.hosted.drain()
            problem(await first, 503, "unavailable")
            assert not (await second).endswith(b"0\r\n\r\n"), "a part must not look whole"


async def test_a_route_ends_with_its_client() -> None:
    ended = asyncio.Event()

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"a"
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        return StreamingResponse(parts())

    async with served([Route("/", stream)]) as one:
        async with one.http.stream("GET", "/shop/orders/") as coming:
            async for _ in coming.aiter_bytes():
                break
        async with asyncio.timeout(HANG):
            await ended.wait()
        await eventually(lambda: not one.hosted.running)
