"""What `/openapi.json` answers: against the official schema, the routes that there are, and what they answer."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx
import jsonschema
import msgspec
import pytest
import schemathesis
from schemathesis.specs.openapi.definitions import OPENAPI_31, OPENAPI_31_VALIDATOR
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from gateway import App, GatewayError, Service, Topic
from gateway.adapters import http
from gateway.adapters.http_api import REQUESTS
from gateway.adapters.http_operation import operations as routed
from gateway.adapters.http_problem import Problem
from gateway.adapters.http_service import check
from gateway.core.access import Principal
from gateway.core.asyncapi import Reached
from gateway.core.openapi import OpenApi
from gateway.edge.operations import operations
from gateway.errors import Denied, Misconfigured
from gateway.testing import running
from gateway.web import Listing, Page, answer, operation, principal
from tests.gateways import TOPICS, Running, client, running_edge, token
from tests.letters import bury

AT = Reached("gateway.example:8443", True, "/connection/websocket")
OPERATOR = {"Authorization": f"Bearer {token('mary', kind='operator')}"}
USER = {"Authorization": f"Bearer {token('alice')}"}


# --- a service with routes of every sort ---


class Leaf(msgspec.Struct, frozen=True, tag="leaf"):
    value: Annotated[int, msgspec.Meta(ge=0)]


class Tree(msgspec.Struct, frozen=True, tag="tree"):
    children: tuple[Tree | Leaf, ...]
    pair: tuple[int, str] = (1, "a")
    first: Leaf = Leaf(0)


class Orders(Listing, frozen=True):
    state: Literal["open", "closed"] = "open"
    since: Annotated[int, msgspec.Meta(ge=0)] = 0
    least: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class SoldOut(GatewayError):
    """An item that is not there any more."""

    code = "sold_out"
    status = 409


@operation("Plant a tree.", grants=["user:{user}"], status=201, errors=[SoldOut], headers={"Idempotency-Key": "Once."})
async def plant(request: Request, body: Tree | Leaf) -> Tree | Leaf:
    if body == Leaf(0):
        raise SoldOut("no leaf is left", "take another")
    return body


@operation("Trees, a page at a time.", grants=["user", "operator"])
async def trees(request: Request, query: Orders) -> Page[Leaf]:
    first = int(query.after or 0)
    found = [Leaf(n) for n in range(first + 1, 8)]
    return Page.of(found[: query.limit + 1], query, lambda leaf: str(leaf.value))


@operation("Forget a tree.")
async def forget(request: Request) -> None:
    principal(request)


@operation("A picture.", grants=["anyone"], answers={200: None, 202: Leaf})
async def picture(request: Request, body: bytes) -> Response:
    return answer(Leaf(len(body)), 202)


async def untold(request: Request) -> Response:
    return answer("whatever")


class Both(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return answer("got")

    async def put(self, request: Request) -> Response:
        return answer("put")


WOOD = Service(
    "wood",
    routes=[
        Route("/", trees),
        Route("/users/{user}/trees", plant, methods=["POST"]),
        Route("/trees/{id:uuid}", forget, methods=["DELETE"]),
        Route("/trees/{x:int}/{y:float}", picture, methods=["PUT", "POST"]),
        Mount("/more/{place}", routes=[Route("/untold", untold), Route("/both/{rest:path}", Both)]),
    ],
)
APP = App("farm", services=[WOOD])
ALL = OpenApi((*operations(), *routed("farm.wood", WOOD)), Problem, title="the tests'", version="1.2.3")
READERS = [None, *(Principal(kind, "alice") for kind in ("user", "device", "service", "operator")), Principal()]


def document(who: Principal | None = None) -> Any:
    return json.loads(ALL.document(who, AT).body)


def described(document: Any) -> set[tuple[str, str]]:
    return {(method, path) for path, methods in document["paths"].items() for method in methods}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = [*value.values()]
    for one in value if isinstance(value, list) else ():
        yield from references(one)


def at(document: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        document = document[int(step) if isinstance(document, list) else step.replace("~1", "/")]
    return document


# --- the schema -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", READERS, ids=str)
def test_every_document_is_valid(who: Principal | None) -> None:
    assert "spec.openapis.org/oas/3.1/schema" in str(OPENAPI_31["$id"])
    found = document(who)
    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(found)] == []
    for reference in references(found):
        assert at(found, reference) is not None
    for schema in found["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [one["operationId"] for path in found["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))
    for path, methods in found["paths"].items():
        for one in methods.values():
            named = {parameter["name"] for parameter in one["parameters"] if parameter["in"] == "path"}
            assert named == set(re.findall(r"\{(.*?)\}", path))


@pytest.mark.parametrize(
    ("pointer", "wrong"),
    [
        ("#/openapi", "3.0.0"),
        ("#/info", {"title": "no version"}),
        ("#/paths/~1dead/get/parameters/0/in", "body"),
        ("#/paths/~1dead/get/responses", {"ok": {"description": "no status"}}),
        ("#/paths/~1farm~1wood/get/responses/200", {"content": {}}),
        ("#/components/securitySchemes/bearer/type", "token"),
        ("#/components/responses/403.denied/headers", []),
    ],
)
def test_a_broken_document_is_not(pointer: str, wrong: Any) -> None:
    found = document()
    parent, _, last = pointer.rpartition("/")
    at(found, parent)[last] = wrong
    assert not OPENAPI_31_VALIDATOR.is_valid(found)


# --- the routes that there are --------------------------------------------------------------------------------------


async def test_the_document_has_every_route_of_the_edge_and_no_other(log_server: str) -> None:
    async with running_edge(log_server) as running:
        there = {
            (method.lower(), re.sub(r":\w+\}", "}", route.path))
            for route in (*http.routes(running.edge), *running.edge.routes)
            for method in (route.methods or set()) - {"HEAD"}
        }
    there.remove(("post", "/api/{method}"))
    there |= {("post", f"/api/{method}") for method in (*REQUESTS, "batch")}
    assert there == described(json.loads(OpenApi(operations(), Problem).document(None, AT).body))


def test_the_document_has_every_route_of_a_service() -> None:
    found = document()
    below = {(method, path) for method, path in described(found) if path.startswith("/farm/")} | {("get", "/farm/wood")}
    assert below == {
        ("get", "/farm/wood"),
        ("post", "/farm/wood/users/{user}/trees"),
        ("delete", "/farm/wood/trees/{id}"),
        ("post", "/farm/wood/trees/{x}/{y}"),
        ("put", "/farm/wood/trees/{x}/{y}"),
        ("get", "/farm/wood/more/{place}/untold"),
        ("get", "/farm/wood/more/{place}/both/{rest}"),
        ("put", "/farm/wood/more/{place}/both/{rest}"),
    }
    plant = found["paths"]["/farm/wood/users/{user}/trees"]["post"]
    assert (plant["summary"], plant["x-topic-gateway-grants"]) == ("Plant a tree.", ["user:{user}"])
    assert plant["responses"].keys() >= {"201", "401", "403", "409", "413", "422", "429", "503", "504"}
    assert {"name": "Idempotency-Key", "in": "header"}.items() <= plant["parameters"][-1].items()
    assert {one["$ref"] for one in plant["requestBody"]["content"]["application/json"]["schema"]["anyOf"]} == {
        "#/components/schemas/Tree",
        "#/components/schemas/Leaf",
    }
    listed = found["paths"]["/farm/wood"]["get"]
    assert [one["name"] for one in listed["parameters"]] == ["after", "limit", "state", "since", "least"]
    assert found["paths"]["/farm/wood/trees/{id}"]["delete"]["responses"]["204"] == {"description": "No Content"}
    assert found["paths"]["/farm/wood/trees/{id}"]["delete"]["parameters"][0]["schema"]["format"] == "uuid"
    untold = found["paths"]["/farm/wood/more/{place}/untold"]["get"]
    assert (untold["responses"].keys(), "x-topic-gateway-grants" in untold) == ({"default"}, False)
    assert not any("untold" in path for path in document(Principal("user", "alice"))["paths"])


# A name that is nowhere is what is asked about.
async def nameless(request: Request, body: Nothing) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - so it is
async def strange(request: Request, query: int) -> None: ...
async def fine(request: Request) -> None: ...


@pytest.mark.parametrize(
    ("call", "grants", "says"),
    [
        (nameless, ["user"], "'Nothing' is not defined"),
        (strange, ["user"], "its query is no struct"),
        (fine, ["user:{user}"], "names {user}"),
        (fine, ["root"], "'root' is not a grant"),
    ],
)
def test_what_cannot_be_told_is_found_before_it_is_served(call: Any, grants: list[str], says: str) -> None:
    service = Service("wood", routes=[Route("/{id}", operation("x", grants=grants)(call))])
    with pytest.raises(Misconfigured, match=says):
        check(service, "farm.wood")


def test_what_is_no_operation_is_refused() -> None:
    async def other(request: Request, payload: int) -> None: ...
    def waits(request: Request) -> None: ...

    for call in (other, waits, lambda: None):
        with pytest.raises(Misconfigured, match="is no operation"):
            operation("x")(call)  # type: ignore[arg-type]  # that is what is asked


# --- the edge -------------------------------------------------------------------------------------------------------


async def test_an_edge_tells_each_which_routes_he_may_ask(log_server: str) -> None:
    async with running_edge(log_server, anonymous=True) as edge, httpx.AsyncClient(base_url=edge.http) as web:

        async def asked(headers: dict[str, str]) -> set[tuple[str, str]]:
            told = await web.get("/openapi.json", headers=headers)
            assert (told.status_code, told.headers["content-type"]) == (200, "application/json")
            assert OPENAPI_31_VALIDATOR.is_valid(told.json())
            assert told.json()["servers"] == [{"url": edge.http}]
            return described(told.json())

        nobody, user, operator = await asked({}), await asked(USER), await asked(OPERATOR)
        assert nobody == user
        assert ("post", "/topics/{topic}") in user
        assert operator - user >= {("get", "/dead"), ("post", "/revocations"), ("post", "/api/publish")}
        told = await web.get("/openapi.json")
        assert told.headers["cache-control"] == "private, no-cache"
        again = await web.get("/openapi.json", headers={"If-None-Match": f"W/{told.headers['etag']}"})
        assert (again.status_code, again.content) == (304, b"")
        assert (await web.get("/openapi.json", headers={**OPERATOR, "If-None-Match": told.headers["etag"]})).is_success
        assert (await web.get("/openapi.json", headers={"Authorization": "Bearer x"})).status_code == 401
        assert (await web.get("/openapi.json", headers={"Origin": "https://elsewhere.example"})).status_code == 403
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http) as web:
        assert (await web.get("/openapi.json")).status_code == 401


#: Method, path, who, how, and the status that follows; ``{letter}`` is the address of a dead letter.
REAL: list[tuple[str, str, str, dict[str, Any], int]] = [
    ("POST", "/topics/{topic}", "rooms/1/messages", {"json": {"a": 1}, "headers": {"Event-Id": "e-1"}}, 201),
    ("POST", "/topics/{topic}", "devices/7/status", {"json": [1], "headers": {"Idempotency-Key": "k"}}, 201),
    ("POST", "/topics/{topic}", "devices/7/status", {"json": [1], "headers": {"Idempotency-Key": "k"}}, 200),
    ("POST", "/topics/{topic}", "devices/7/status", {"json": [2], "headers": {"Idempotency-Key": "k"}}, 422),
    ("POST", "/topics/{topic}", "devices/7/status", {"json": [1], "params": {"wait": "10ms"}}, 504),
    ("GET", "/topics/{topic}", "devices/7/status", {}, 200),
    ("GET", "/topics/{topic}", "devices/7/status", {"headers": {"If-None-Match": "*"}}, 304),
    ("GET", "/topics/{topic}/history", "devices/7/status", {}, 200),
    ("GET", "/topics/{topic}/history", "devices/7/status", {"params": {"since": "1-1"}}, 410),
    ("POST", "/tickets", "", {"json": {"filter": "devices/+/status"}}, 201),
    ("POST", "/revocations", "", {"json": {"what": "sub", "name": "user:eve"}}, 201),
    ("GET", "/dead", "", {}, 200),
    ("GET", "/dead/{partition}/{id}", "{letter}", {}, 200),
    ("PUT", "/dead/{partition}/{id}", "{letter}", {"content": b"{"}, 422),
    ("POST", "/dead/replay", "", {"json": {"all": True, "dry_run": True}}, 200),
    ("POST", "/dead/drop", "", {"json": {"letters": ["x"]}}, 400),
    ("POST", "/api/publish", "", {"json": {"channel": "devices/7/status", "data": 1}}, 200),
    ("POST", "/api/publish", "", {"json": {"channel": "nothing", "data": 1}}, 200),
    ("POST", "/api/broadcast", "", {"json": {"channels": ["devices/7/status", "nothing"], "data": 1}}, 200),
    ("POST", "/api/history", "", {"json": {"channel": "devices/7/status", "limit": 5}}, 200),
    ("POST", "/api/presence", "", {"json": {"channel": "lobby/1"}}, 200),
    ("POST", "/api/presence_stats", "", {"json": {"channel": "lobby/1"}}, 200),
    ("POST", "/api/info", "", {"json": {}}, 200),
    ("POST", "/api/batch", "", {"json": {"commands": [{"info": {}}, {"presence": {"channel": "nothing"}}]}}, 200),
    ("POST", "/api/subscribe", "", {"json": {"user": "eve", "channel": "lobby/1"}}, 200),
    ("POST", "/api/refresh", "", {"json": {"user": "eve", "expired": True}}, 200),
    ("POST", "/api/disconnect", "", {"json": {"user": "eve"}}, 200),
    ("POST", "/api/unsubscribe", "", {"json": {"user": "eve", "channel": "lobby/1"}}, 200),
    ("GET", "/connections", "", {"params": {"topic": "lobby/1", "slow": "false"}}, 200),
    ("GET", "/connections", "", {"params": {"limit": 0}}, 400),
    ("GET", "/asyncapi.json", "", {}, 200),
    ("GET", "/livez", "", {}, 200),
    ("GET", "/readyz", "", {}, 200),
    ("GET", "/metrics", "", {}, 200),
]


async def test_what_an_edge_answers_is_what_it_says(log_server: str) -> None:
    lobby = Topic(pattern="lobby/{room}", read=("user", "operator"), presence=True)
    async with running_edge(log_server, (*TOPICS, lobby)) as edge:
        (letter,) = await bury(edge, place="rooms.0", topic="rooms/1/messages")
        async with (
            client(edge.ws, token("alice")) as watcher,
            httpx.AsyncClient(base_url=edge.http, headers=OPERATOR, timeout=30) as web,
        ):
            assert "subscribe" in await watcher.ask("subscribe", channel="lobby/1")
            await _held(edge, web, letter)


async def _held(edge: Running, web: httpx.AsyncClient, letter: str) -> None:
    schema = schemathesis.openapi.from_dict((await web.get("/openapi.json")).json())
    for method, path, name, how, status in REAL:
        asked = re.sub(r"\{topic\}", name, path).replace("{partition}/{id}", letter)
        told = await web.request(method, asked, **how)
        assert told.status_code == status, f"{method} {asked}: {told.status_code} {told.text}"
        schema[path][method].validate_response(told)


# --- a service behind it --------------------------------------------------------------------------------------------


async def test_an_operation_is_held_to_what_it_says() -> None:
    async with running(APP, edge=True) as gateway, gateway.client("user:alice") as web:
        told = (await web.get("/openapi.json")).json()
        assert ("delete", "/farm/wood/trees/{id}") in described(told)
        schema = schemathesis.openapi.from_dict(told)

        async def asked(method: str, path: str, status: int, template: str = "", **how: Any) -> httpx.Response:
            answered = await web.request(method, f"/farm/wood{path}", **how)
            assert answered.status_code == status, answered.text
            schema[f"/farm/wood{template or path}".rstrip("?")][method].validate_response(answered)
            return answered

        users = "/users/{user}/trees"
        leaf = {"type": "leaf", "value": 3}
        made = await asked("POST", "/users/alice/trees", 201, users, json=leaf)
        assert made.json() == leaf
        await asked("POST", "/users/alice/trees", 409, users, json={**leaf, "value": 0})
        await asked("POST", "/users/alice/trees", 422, users, json={**leaf, "value": -1})
        await asked("POST", "/users/bob/trees", 403, users, json=leaf)
        id = uuid.uuid4()
        await asked("DELETE", f"/trees/{id}", 204, "/trees/{id}")
        await asked("DELETE", f"/trees/{id}", 401, "/trees/{id}", headers={"Authorization": ""})
        await asked("PUT", "/trees/1/2.5", 202, "/trees/{x}/{y}", content=b"\xff", headers={"Authorization": ""})
        seen: list[int] = []
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            page = (await asked("GET", "", 200, params={"limit": 3, "after": page["next"]})).json()
            seen += [one["value"] for one in page["items"]]
        assert seen == [1, 2, 3, 4, 5, 6, 7]
        for query in (
            "limit=0",
            "limit=501",
            "limit=x",
            "state=lost",
            "nothing=1",
            "limit=1&limit=2",
            "least=nan",
            "after=%00",
        ):
            await asked("GET", f"?{query}", 400, "?")


def test_a_number_in_a_path_names_a_user_too() -> None:
    scope = {"type": "http", "path_params": {"user": 42}, "state": {"principal": Principal("user", "42")}}
    assert principal(Request(scope), "user:{user}").name == "42"
    with pytest.raises(Denied):
        principal(Request({**scope, "path_params": {"user": 7}}), "user:{user}")
