"""schemathesis over every HTTP route of a real edge, by its own document: it answers what it says, whoever asks."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from gateway import App, GatewayError, Service
from gateway.testing import running
from gateway.web import Listing, NotAvailable, Page, answer, operation
from tests.gateways import TOPICS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
#: What is really there, for the fuzzer to fall upon: a schema that also allows any text is any text to it.
GOOD: dict[str, tuple[str, ...]] = {
    "topic": ("try/x", "devices/7/telemetry", "rooms/1/messages", "users/alice/inbox", "devices/7/status"),
    "filter": ("try/#", "devices/+/telemetry", "rooms/1/#", "#"),
    "partition": ("devices.0", "rooms.1"),
    "id": ("1-1", "1795376295235-0", "-", "+"),
    "user": ("alice", "bob"),
    "sku": ("CUP", "TEA"),
    "order": ("0-0", "0-1"),
}
HANG = 30.0
#: How often what is answered "not now" is asked.
AGAIN = 3
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


# --- a service behind the edge ---


class Order(msgspec.Struct, forbid_unknown_fields=True):
    item: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1


class Orders(Listing, frozen=True):
    item: str = ""


class SoldOut(GatewayError):
    """An item that is not there any more."""

    code = "sold_out"
    status = 409


@operation("Place an order.", grants=["user:{user}", "operator"], status=201, errors=[SoldOut])
async def place(request: Request, body: Order) -> Order:
    if body.count > 5:
        raise SoldOut("so many are not there", "order fewer")
    return body


@operation("A user's orders.", grants=["user:{user}", "operator"])
async def listed(request: Request, query: Orders) -> Page[Order]:
    after = int(query.after) if query.after in {*"12345678"} else 0
    found = [Order(query.item or "tea", n) for n in range(1, 9) if n > after]
    return Page.of(found[: query.limit + 1], query, lambda order: str(order.count))


@operation("One order.", grants=["anyone"], errors=[NotAvailable])
async def one(request: Request) -> Order:
    if request.path_params["number"] > 8:
        raise NotAvailable("there is no such order", "look at the list")
    return Order("tea")


@operation("Forget an order.")
async def forget(request: Request) -> None:
    pass


@operation("A receipt.", answers={200: bytes | None, 202: None})
async def receipt(request: Request, body: bytes) -> Response:
    return Response(status_code=202) if not body else answer(None)


SHOP = App(
    "shop",
    services=[
        Service(
            "orders",
            routes=[
                Route("/users/{user}", place, methods=["POST"]),
                Route("/users/{user}", listed),
                Mount(
                    "/more", routes=[Route("/{number:int}", one), Route("/{number:int}", forget, methods=["DELETE"])]
                ),
                Route("/receipts", receipt, methods=["PUT"]),
            ],
        )
    ],
)


@operation("An order, they say.", grants=["anyone"], answers={200: Order})
async def lies(request: Request) -> Response:
    return {"text": answer({"item": 7}), "status": answer(Order("tea"), 203)}[request.query_params["how"]]


# --- asking ---


@pytest.mark.parametrize("who", ["", "user:alice", "operator:mary", "a liar"])
async def test_every_route_answers_what_it_says(who: str) -> None:
    topics = {name: [topic for topic in TOPICS if topic.owner == name] for name in ("devices", "rooms", "users", "try")}
    async with running(SHOP, *(App(name, found) for name, found in topics.items()), edge=True) as gateway:
        jwt = "a.b.c" if who == "a liar" else gateway.token(who) if who else ""
        await asyncio.to_thread(asked, gateway.url, gateway.token("operator:mary"), bearing(jwt))


@pytest.mark.parametrize("how", ["text", "status"])
async def test_a_route_that_lies_is_found(how: str) -> None:
    liar = App("shop", services=[Service("orders", routes=[Route("/", lies)])])
    async with running(liar, edge=True) as gateway, gateway.client("operator:mary") as http:
        schema = schemathesis.openapi.from_dict((await http.get("/openapi.json")).json())
        answered = await http.get("/shop/orders", params={"how": how})
        with pytest.raises(FailureGroup):
            schema["/shop/orders"]["GET"].Case().validate_response(answered, checks=CHECKS)


def bearing(jwt: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {jwt}"} if jwt else {}


def asked(at: str, reader: str, who: Mapping[str, str], below: str = "/") -> None:
    """Ask every route that ``reader`` is told of, as ``who``, for what the fuzzer makes up of its description."""
    told = requests.get(f"{at}/openapi.json", headers=bearing(reader), timeout=30)
    schema = schemathesis.openapi.from_dict(told.json())
    schema.config.generation.update(with_security_parameters=False)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        one = found.ok()
        if not one.path.startswith(below):
            continue
        hold(one, GenerationMode.POSITIVE, at, who)
        # Of what is said by text alone, nothing is wrong by its type: the fuzzer would look for it in vain.
        if any(body.media_type == "application/json" and body.definition["schema"] for body in one.body):
            hold(one, GenerationMode.NEGATIVE, at, who)


def hold(operation: Any, mode: GenerationMode, at: str, who: Mapping[str, str]) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(mode), st.randoms(use_true_random=False))
    def one(case: Any, chance: random.Random) -> None:
        for name in case.path_parameters or {}:
            if name in GOOD and chance.random() < 0.8:
                case.path_parameters[name] = quote(chance.choice(GOOD[name]), safe="")
        for name in list(case.headers or {}):
            if chance.random() < 0.7:
                del case.headers[name]  # or nearly every request would end at one of them
        if chance.random() < 0.5:
            case.query = {}
        if re.fullmatch(r"\d+(ms|s)", (case.query or {}).get("wait", "")):
            case.query["wait"] = "20ms"  # nobody replies
        for again in reversed(range(AGAIN)):
            with requests.request(
                **case.as_transport_kwargs(base_url=at, headers=who), stream=True, timeout=HANG
            ) as answered:
                if again and answered.status_code == 503:  # as a client does, who reads Retry-After
                    time.sleep(float(answered.headers.get("Retry-After", "1")))
                    continue
                judge(case, answered)
                return

    one()


def judge(case: Any, answer: requests.Response) -> None:
    said = f"{answer.status_code} {case.as_curl_command()}"
    # 504: nobody replied to a request that waits.
    assert answer.status_code < 500 or answer.status_code == 504, said
    if "event-stream" in answer.headers.get("content-type", ""):
        return  # without end
    assert "Traceback" not in answer.text, said
    case.validate_response(answer, checks=CHECKS)
    if answer.status_code >= 400:
        codes = case.operation.responses.find_by_status_code(answer.status_code).definition["x-topic-gateway-codes"]
        assert answer.json()["type"].removeprefix("urn:topic-gateway:") in codes, said
