"""One service asks another, or the server API, over HTTP: as itself, by one origin, and whose fault a failure is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import App, Context, Retry, Service, Topic, limits
from gateway.adapters.http_asking import configured
from gateway.adapters.http_bounds import BadPath, TooSlow
from gateway.adapters.tokens import Verifier, add_api_key, keep_api_key, load_api_key
from gateway.errors import Busy, GatewayError, Misconfigured
from gateway.settings import GatewayTable, Settings
from gateway.testing import Gateway, running
from gateway.web import (
    NotAvailable,
    NotLetIn,
    TurnedDown,
    Unavailable,
    WrongAnswer,
    answer,
    ask,
    body,
    origin,
    principal,
)


class There(msgspec.Struct):
    presence: dict[str, object]


class Price(msgspec.Struct):
    cents: int
    by: str = ""


async def price(request: Request) -> Response:
    who, item = principal(request, "service"), request.path_params["item"]
    match item:
        case "tea":
            return answer(Price(1290, str(who)))
        case "echo":
            return answer(await body(request, dict[str, int]))
        case "long":
            return Response(b" " * (limits.ASK_ANSWER_BYTES + 1))
        case "slow":
            await asyncio.Event().wait()
        case "busy":
            return Response(status_code=429, headers={"retry-after": "7"})
    raise NotAvailable("no such article", "look at the list")


async def secret(request: Request) -> Response:
    principal(request, "service:nobody")
    return answer({})


async def relayed(request: Request) -> Response:
    """What a route is told by asking, in words."""
    asked = await request.json()
    try:
        got = await ask(
            request,
            asked["method"],
            asked["path"],
            asked.get("body"),
            returns=dict[str, object],
            within=asked["within"],
        )
    except GatewayError as error:
        told = {"error": type(error).__name__, "retry": error.retry, "whose": error.whose, "after": error.retry_after}
        if isinstance(error, TurnedDown):
            told |= {"answered": error.answered, "word": error.word}
        return answer(told)
    return answer(got)


def shop() -> App:
    catalog = Service("catalog", routes=[Route("/secret", secret), Route("/{item}", price, methods=["GET", "POST"])])
    orders = Service(
        "orders",
        emits=["shop/orders/{order}/priced"],
        routes=[Route("/", relayed, methods=["POST"])],
        asks=["shop.catalog", "shop.absent", "api"],
    )

    @orders.on("shop/orders/{order}/placed", retry=Retry(2, first=0.01, most=0.02))
    async def placed(order: dict[str, str], context: Context) -> None:
        found = await ask(context, "GET", f"/shop/catalog/{order['item']}", returns=Price)
        context.emit(f"shop/orders/{context.variables['order']}/priced", {"of": found, "at": origin(context)})

    @orders.on("shop/orders/{order}/looked-at")
    async def looked_at(order: dict[str, str], context: Context) -> None:
        channel = {"channel": f"shop/orders/{context.variables['order']}/priced"}
        found = await ask(context, "POST", "/api/presence", channel, returns=There)
        context.emit(channel["channel"], {"there": len(found.presence)})

    topics = [
        Topic(pattern="shop/orders/{order}/placed"),
        Topic(pattern="shop/orders/{order}/looked-at"),
        Topic(pattern="shop/orders/{order}/priced", presence=True, read=("service:shop.orders",)),
    ]
    return App("shop", topics, [catalog, orders])


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running(shop(), edge=True) as gateway:
        yield gateway


async def asked(
    gateway: Gateway, path: str, method: str = "GET", within: float = 30.0, content: object = None
) -> object:
    async with gateway.client("user:ann") as http:
        words = {"method": method, "path": path, "within": within, "body": content}
        return (await http.post("/shop/orders", content=json.dumps(words))).json()


async def test_a_handler_asks_as_its_own_service_and_knows_the_origin(gateway: Gateway) -> None:
    await gateway.publish("shop/orders/7/placed", {"item": "tea"})
    found = await gateway.event("shop/orders/7/priced")
    assert found.json() == {"of": {"cents": 1290, "by": "service:shop.orders"}, "at": gateway.url}


async def test_the_server_api_answers_a_service(gateway: Gateway) -> None:
    await gateway.publish("shop/orders/7/looked-at", {})
    assert (await gateway.event("shop/orders/7/priced")).json() == {"there": 0}
    assert await asked(gateway, "/api/unsubscribe", "POST", content={"user": "ann", "channel": "x"}) == {}


async def test_who_is_away_is_asked_again_and_the_event_is_not_given_up(gateway: Gateway) -> None:
    async with gateway.away("shop.catalog"):
        await gateway.publish("shop/orders/7/placed", {"item": "tea"})
        assert (await asked(gateway, "/shop/catalog/tea")) == {
            "error": "Unavailable",
            "retry": True,
            "whose": "gateway",
            "after": 1.0,
        }
    await gateway.event("shop/orders/7/priced", within=60)
    assert await gateway.dead_letters() == []


async def test_what_is_turned_down_is_the_event_s_own_failure(gateway: Gateway) -> None:
    await gateway.publish("shop/orders/7/placed", {"item": "coffee"})
    await gateway.at_rest()
    (letter,) = await gateway.dead_letters()
    assert letter.reason == "gave_up"
    assert "/shop/catalog/coffee answered 404 not_available" in letter.error


@pytest.mark.parametrize(
    ("path", "more", "error", "says"),
    [
        ("/shop/catalog/coffee", {}, TurnedDown, {"answered": 404, "word": "not_available", "whose": "caller"}),
        ("/shop/catalog/coffee?x=1", {"method": "PUT"}, TurnedDown, {"answered": 405, "retry": False}),
        ("/shop/catalog/secret", {}, NotLetIn, {"whose": "operator", "retry": True}),
        ("/shop/catalog/busy", {}, Unavailable, {"after": 7.0}),
        ("/shop/catalog/slow", {"within": 0.2}, TooSlow, {"retry": True}),
        ("/shop/catalog/long", {}, WrongAnswer, {"whose": "operator", "retry": False}),
        ("/shop/absent/x", {}, TurnedDown, {"answered": 404}),
        ("/shop/other/x", {}, Misconfigured, {}),
        ("/shop/catalogue/x", {}, Misconfigured, {}),
        ("/shop/catalog/../other/x", {}, BadPath, {}),
        ("/api/presence", {"content": {"channel": "shop/orders/7/placed"}}, NotLetIn, {"whose": "operator"}),
        ("/api/presence", {"content": {"channel": "other"}}, TurnedDown, {"answered": 102}),
        ("/api/presence", {"content": {"channel": 7}}, TurnedDown, {"answered": 107, "whose": "caller"}),
        ("/api/batch", {"content": {"commands": []}}, WrongAnswer, {}),
        ("/api/nothing", {}, TurnedDown, {"answered": 404}),
    ],
)
async def test_whose_fault_it_is(
    gateway: Gateway, path: str, more: dict[str, object], error: type[GatewayError], says: dict[str, object]
) -> None:
    method = {"method": "POST"} if path.startswith("/api/") else {}
    told = await asked(gateway, path, **method, **more)  # type: ignore[arg-type]  # words of the table
    assert isinstance(told, dict)
    assert told.items() >= (says | {"error": error.__name__}).items()


async def test_json_is_sent_and_an_answer_of_another_type_is_told(gateway: Gateway) -> None:
    assert await asked(gateway, "/shop/catalog/echo", "POST", content={"n": 1}) == {"n": 1}
    await gateway.publish("shop/orders/7/placed", {"item": "echo"})  # a GET has no body: that is 422, and no price
    await gateway.at_rest()
    (letter,) = await gateway.dead_letters()
    assert "answered 422" in letter.error


async def test_so_many_at_once_and_the_next_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASKS_AT_ONCE", 1)
    first = asyncio.create_task(asked(gateway, "/shop/catalog/slow", within=60.0), name="the first")
    told: dict[str, object] = {}
    while told.get("error") != Busy.__name__:  # until the first is there
        found = await asked(gateway, "/shop/catalog/tea", within=0.5)
        assert isinstance(found, dict)
        told = found
    first.cancel()


def test_a_process_knows_origin_and_key_before_it_takes_an_event(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "shop.orders.key"
    configured("shop.orders", [], "", file)  # who asks nobody needs neither
    with pytest.raises(Misconfigured, match=r"gateway\.origin is not set"):
        configured("shop.orders", ["shop.catalog"], "", file)
    with pytest.raises(Misconfigured, match="cannot be read"):
        configured("shop.orders", ["shop.catalog"], "http://127.0.0.1:1", file)
    hashes = Settings(gateway=GatewayTable(data=str(tmp_path))).api_keys_file
    keep_api_key(hashes, "shop.orders", file)
    for written in ("http://127.0.0.1:1", "http://127.0.0.1:1/"):
        assert configured("shop.orders", ["shop.catalog"], written, file).origin == "http://127.0.0.1:1"
    file.chmod(0o644)
    with pytest.raises(Misconfigured, match="read by others"):
        configured("shop.orders", ["shop.catalog"], "http://127.0.0.1:1", file)


async def test_a_key_that_was_taken_away_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.key"
    keep_api_key(tmp_path / "api.keys", "a", file)
    asking = configured("shop.a", ["shop.b"], "http://127.0.0.1:1", file)
    with pytest.raises(Unavailable, match="ConnectError"):
        await asking.ask("GET", "/shop/b/x", None, {}, 30.0)
    file.write_text("gone")
    with pytest.raises(NotLetIn, match="holds no API key"):
        await asking.ask("GET", "/shop/b/x", None, {}, 30.0)


def test_a_key_is_made_once_and_again_where_it_is_no_more_known(tmp_path: Path) -> None:
    hashes, file = tmp_path / "api.keys", tmp_path / "keys" / "shop.orders.key"
    keep_api_key(hashes, "shop.orders", file)
    first = load_api_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    keep_api_key(hashes, "shop.orders", file)
    assert load_api_key(file) == first
    hashes.write_text("")
    keep_api_key(hashes, "shop.orders", file)
    assert load_api_key(file) != first
    ring = Verifier(Settings(gateway=GatewayTable(data=str(tmp_path)))).ring
    assert str(ring.api_keys.verify(load_api_key(file)).principal) == "service:shop.orders"
    assert add_api_key(hashes, "shop.orders") != load_api_key(file)
