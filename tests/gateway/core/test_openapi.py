"""The document of HTTP routes: what it says of each, and to whom."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest

from gateway import limits
from gateway.core.access import ANONYMOUS, Principal
from gateway.core.asyncapi import Reached
from gateway.core.openapi import Answer, OpenApi, Operation, Parameter
from gateway.errors import BadToken, Busy, Denied, GatewayError, TokenExpired

AT = Reached("gateway.example", False, "/ws")


class Problem(msgspec.Struct):
    status: int


class Order(msgspec.Struct):
    """What is ordered."""

    item: str


class Asked(msgspec.Struct):
    state: str
    limit: Annotated[int, msgspec.Meta(ge=1)] = 50
    after: str = ""


class Odd(GatewayError):
    code = "odd"
    status = 409


PLACE = Operation(
    "place",
    "POST",
    "/users/{user}/orders/{n}",
    "shop",
    "Place an order.",
    ("user:{user}", "operator"),
    "At most one.",
    (Parameter("n", "path", "Which.", int), Parameter("Idempotency-Key", "header")),
    query=Asked,
    body={"application/json": Order, "text/plain": str, "image/png": bytes, "application/x-ndjson": str},
    answers={201: Answer("Placed.", {"application/json": Order}, {"location": "Where."}), 204: Answer("Nothing.")},
    errors=(BadToken, TokenExpired, Denied, Busy, Odd),
)
ALL = (
    PLACE,
    Operation("open", "GET", "/open", "shop", "For all.", ("anyone",), security=()),
    Operation("hers", "GET", "/open/hers", "shop", "For one.", ("user:bob",)),
    Operation("untold", "DELETE", "/open", "shop", "untold"),
)


def told(who: Principal | None = None, at: Reached = AT, operations: tuple[Operation, ...] = ALL) -> Any:
    return json.loads(OpenApi(operations, Problem, title="shop", version="3").document(who, at).body)


def test_a_route_says_what_it_takes() -> None:
    found = told()
    assert found["openapi"] == "3.1.0"
    assert (found["info"]["title"], found["info"]["version"]) == ("shop", "3")
    place = found["paths"]["/users/{user}/orders/{n}"]["post"]
    assert (place["operationId"], place["tags"], place["summary"]) == ("place", ["shop"], "Place an order.")
    assert place["description"] == "At most one."
    text, required = {"type": "string"}, {"required": True}
    assert place["parameters"] == [
        {"name": "n", "in": "path", **required, "schema": {"type": "integer"}, "description": "Which."},
        {"name": "Idempotency-Key", "in": "header", "required": False, "schema": text},
        {"name": "user", "in": "path", **required, "schema": text},
        {"name": "state", "in": "query", **required, "schema": text},
        {
            "name": "limit",
            "in": "query",
            "required": False,
            "schema": {"type": "integer", "minimum": 1, "default": 50},
        },
        {"name": "after", "in": "query", "required": False, "schema": text},
    ]
    assert place["requestBody"] == {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Order"}},
            "text/plain": {"schema": text},
            "image/png": {"schema": {}},
            "application/x-ndjson": {"schema": {}},
        },
    }
    assert found["components"]["schemas"].keys() == {"Order", "Problem"}


def test_a_route_says_what_it_answers() -> None:
    found = told()
    answers = found["paths"]["/users/{user}/orders/{n}"]["post"]["responses"]
    assert answers["201"] == {
        "description": "Placed.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
        "headers": {"location": {"description": "Where.", "schema": {"type": "string"}}},
    }
    assert answers["204"] == {"description": "Nothing."}
    assert [*answers] == ["201", "204", "401", "403", "409", "429"]
    assert answers["401"] == {"$ref": "#/components/responses/401.bad_token.token_expired"}
    refusals = found["components"]["responses"]
    assert refusals["409.odd"]["description"] == "`odd`: odd"
    assert refusals["409.odd"]["content"] == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    unknown = refusals["401.bad_token.token_expired"]
    assert unknown["x-topic-gateway-codes"] == ["bad_token", "token_expired"]
    assert unknown["headers"] == {"WWW-Authenticate": {"$ref": "#/components/headers/WWW-Authenticate"}}
    assert refusals["429.busy"]["headers"].keys() == {"Retry-After"}
    assert found["paths"]["/open"]["delete"]["responses"].keys() == {"default"}


def test_a_route_says_who_may() -> None:
    paths = told()["paths"]
    tokens: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
    place = paths["/users/{user}/orders/{n}"]["post"]
    assert (place["security"], place["x-topic-gateway-grants"]) == (tokens, ["user:{user}", "operator"])
    assert (paths["/open"]["get"]["security"], paths["/open"]["get"]["x-topic-gateway-grants"]) == ([{}], ["anyone"])
    untold = paths["/open"]["delete"]
    assert untold["security"] == [{}, *tokens]
    assert "x-topic-gateway-grants" not in untold


@pytest.mark.parametrize(
    ("who", "ids"),
    [
        (None, ["place", "open", "hers", "untold"]),
        (Principal("operator", "mary"), ["place", "open", "hers", "untold"]),
        (Principal("user", "alice"), ["place", "open"]),
        (Principal("user", "bob"), ["place", "open", "hers"]),
        (Principal("device", "bob"), ["open"]),
        (ANONYMOUS, ["open"]),
    ],
)
def test_each_is_told_of_what_he_may_ask(who: Principal | None, ids: list[str]) -> None:
    found = told(who)
    assert sorted(one["operationId"] for path in found["paths"].values() for one in path.values()) == sorted(ids)
    assert ("Order" in found["components"]["schemas"]) is ("place" in ids)
    assert [tag["name"] for tag in found["tags"]] == ["shop"]


def test_a_document_has_the_address_by_which_it_was_asked_for_and_a_tag() -> None:
    api = OpenApi(ALL, Problem)
    plain, secure = api.document(None, AT), api.document(None, Reached("x:8443", True, "/ws"))
    assert json.loads(plain.body)["servers"] == [{"url": "http://gateway.example"}]
    assert json.loads(secure.body)["servers"] == [{"url": "https://x:8443"}]
    assert plain.etag != secure.etag
    assert plain == api.document(Principal("operator", "mary"), AT)
    assert told(operations=())["paths"] == {}


class Free(msgspec.Struct):
    tags: list[str] = []
    until: int | msgspec.UnsetType = msgspec.UNSET


def test_a_default_that_is_made_anew_is_not_told() -> None:
    one = Operation("free", "GET", "/free", "shop", "For all.", ("anyone",), query=Free)
    (operation,) = told(operations=(one,))["paths"]["/free"].values()
    assert [(each["name"], "default" in each["schema"]) for each in operation["parameters"]] == [
        ("tags", False),
        ("until", False),
    ]


def test_documents_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOCUMENTS", 1)
    api = OpenApi(ALL, Problem)
    bodies = [api.document(who, AT).body for who in (None, ANONYMOUS, None)]
    assert bodies[0] == bodies[2] != bodies[1]
    assert len(api._encoded) == 1
