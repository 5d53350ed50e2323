"""What `/asyncapi.json` answers, against the official schema of AsyncAPI 3.0.0 (npm @asyncapi/specs)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import jsonschema
import msgspec
import pytest

from examples.a_service import app as shop
from gateway import App, Context, Event, Service, Topic
from gateway.app import declare, participants, promises, services
from gateway.core.access import Principal
from gateway.core.asyncapi import AsyncApi, Reached
from gateway.core.declared import valid
from gateway.errors import BadPayload, ServerMissing
from gateway.settings import Settings, load
from tests.gateways import TOPICS, running_edge, token
from tests.servers import missing

ROOT = Path(__file__).parent.parent.parent
SCHEMA = ROOT / "tests/journeys/sdk/node_modules/@asyncapi/specs/schemas/3.0.0.json"
AT = Reached("gateway.example:8443", True, "/connection/websocket")


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft7Validator:
    if not SCHEMA.is_file():
        missing(ServerMissing("the schema of AsyncAPI 3.0.0", "tools/npm-ci tests/journeys/sdk"))
    return jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


# --- a tricky application -------------------------------------------------------------------------------------------


class Leaf(msgspec.Struct, frozen=True, tag="leaf"):
    value: Annotated[int, msgspec.Meta(ge=0, description="never negative")]


class Node(msgspec.Struct, frozen=True, tag="node"):
    """A tree, so it names itself."""

    children: tuple[Node | Leaf, ...]
    #: Tuples, a default that looks like a schema, and a field called as a word of JSON Schema.
    pair: tuple[int, str] = (1, "a")
    default: dict[str, int] = msgspec.field(default_factory=dict)
    discriminator: str = ""
    first: Leaf = Leaf(0)


class Flat(msgspec.Struct, array_like=True):
    a: int
    b: str = "x"


class Vendor:
    """Nothing that msgspec knows."""


class Wrapped(msgspec.Struct):
    mode: Literal["on", "off"]
    vendor: Vendor | None = None
    blob: bytes = b""


async def _grow(tree: Node | Leaf, context: Context) -> None: ...
async def _all(event: Event, context: Context) -> None: ...
async def _batch(flat: list[Flat], context: list[Context]) -> None: ...
async def _orders(order: dict[str, int], context: Context) -> None: ...
async def _wrapped(wrapped: Wrapped, context: Context) -> None: ...


def _service(name: str, emits: list[str], **on: Any) -> Service:
    made = Service(name, emits=emits)
    for pattern, call in on.get("on", {}).items():
        made.on(pattern, batch=2 if call is _batch else 0)(call)
    return made


TRICKY = App(
    "odd",
    [
        Topic(pattern="odd/tree/{tree}", schema=Node | Leaf, write=("user:{tree}",), read=("anyone",), key="{tree}"),
        Topic(pattern="odd/flat/+/{x}/#", write=("anyone",), read=("service:odd.audit", "operator"), mqtt="in"),
        Topic(pattern="odd/blob/#", payload="bytes", write=("device",), mqtt="in"),
        Topic(pattern="odd/text/größe?x=1#2", payload="text", read=("user",)),
        Topic(pattern="odd/text/gr__e_x_1_2", payload="text", read=("user",)),
        Topic(pattern="odd/now/{a}", ephemeral=True, read=("user",), write=("user",)),
        Topic(pattern="odd/last/{a}", retain=True, history=False, kind="command", identity="{a}/{seq}"),
        Topic(pattern="odd/wrapped", schema=Wrapped),
        Topic(pattern="odd/level_3/{level_4}/+/{rest}/#"),
        Topic(pattern="odd"),
    ],
    services=[
        _service("grow", ["odd/now/{b}", "odd/flat/{y}/fixed/#"], on={"odd/tree/{t}": _grow, "odd/last/7": _orders}),
        _service("audit", [], on={"odd/tree/#": _all, "odd/flat/#": _batch, "odd/last/#": _orders}),
        _service("narrow", ["odd/blob/a/b"], on={"odd/flat/{x}/+/z": _wrapped, "odd": _wrapped}),
    ],
    durability="fast",
)


def made(*apps: App, settings: Settings | None = None) -> AsyncApi:
    settings = settings or Settings()
    declared = declare(settings, apps)
    return AsyncApi(
        declared,
        title="the tests'",
        version="1.2.3",
        participants=participants(services(declared, apps)),
        durability={promise.app: promise.durability for promise in promises(settings, declared, apps)},
        mqtt="mqtts://gateway:secret@broker.example:8883",
    )


DOCUMENTS = {
    "nothing": made(),
    "examples": made(shop),
    "gateway.toml": made(settings=load(str(ROOT / "gateway.toml"), {})),
    "tricky": made(TRICKY),
    "all": made(TRICKY, shop, settings=load(str(ROOT / "gateway.toml"), {})),
}
READERS = [None, *(Principal(kind, "odd.audit") for kind in ("user", "device", "service", "operator")), Principal()]


def document(api: AsyncApi, who: Principal | None = None) -> Any:
    return json.loads(api.document(who, AT).body)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def at(document: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        document = document[step]
    return document


# --- the schema -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", READERS, ids=str)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_document_is_valid(official: jsonschema.Draft7Validator, name: str, who: Principal | None) -> None:
    found = document(DOCUMENTS[name], who)
    assert [f"{error.json_path}: {error.message[:300]}" for error in official.iter_errors(found)] == []
    for reference in references(found):
        assert at(found, reference) is not None
    for channel in found["channels"].values():
        assert set(re.findall(r"\{([^}]*)\}", channel["address"])) == set(channel.get("parameters", {}))
        assert not {"+", "#"} & set(channel["address"].split("/"))
        jsonschema.Draft7Validator.check_schema(channel["messages"]["event"]["payload"])
    for operation in found["operations"].values():
        assert operation["channel"]["$ref"].removeprefix("#/channels/") in found["channels"]


@pytest.mark.parametrize(
    ("pointer", "wrong"),
    [
        ("#/asyncapi", "2.6.0"),
        ("#/info", {"title": "no version"}),
        ("#/servers/websocket", {"protocol": "wss"}),
        ("#/channels/odd.tree.tree/parameters/tree", {"schema": {"type": "string"}}),
        ("#/channels/odd.tree.tree/messages/event/payload", {"type": "tree"}),
        ("#/channels/odd.tree.tree/messages/event/contentType", 1),
        ("#/channels/odd.tree.tree/x_topic", 1),
        ("#/operations/receive.odd.tree.tree/action", "publish"),
        ("#/operations/receive.odd.flat.any.x.rest/bindings/mqtt", {"qos": 3, "bindingVersion": "0.2.0"}),
        ("#/components/schemas/Leaf", {"discriminator": {"propertyName": "type"}}),
        ("#/components/securitySchemes/bearer/type", "token"),
    ],
)
def test_a_broken_document_is_not(official: jsonschema.Draft7Validator, pointer: str, wrong: Any) -> None:
    found = document(DOCUMENTS["tricky"])
    assert official.is_valid(found)
    parent, _, last = pointer.rpartition("/")
    at(found, parent)[last] = wrong
    assert not official.is_valid(found)


# --- what it says ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"leaf","value":1}',
        b'{"type":"leaf","value":-1}',
        b'{"type":"leaf"}',
        b'{"type":"node","children":[{"type":"node","children":[]},{"type":"leaf","value":2}]}',
        b'{"type":"node","children":[{"type":"node","children":[{"type":"leaf","value":"2"}]}]}',
        b'{"type":"node","children":[],"pair":[1,"b"]}',
        b'{"type":"node","children":[],"pair":["b",1]}',
        b'{"type":"node","children":[],"pair":[1]}',
        b'{"type":"node","children":[],"pair":[1,"b",3]}',
        b'{"type":"node","children":[],"first":{"type":"leaf","value":3},"discriminator":"d","default":{"a":1}}',
        b'{"type":"node","children":[],"first":{"type":"node","children":[]}}',
        b'{"type":"other"}',
        b"1",
    ],
)
def test_a_payload_schema_says_what_the_door_says(data: bytes) -> None:
    api = made(TRICKY)
    (topic,) = [topic for topic in TRICKY.topics if topic.pattern == "odd/tree/{tree}"]
    try:
        valid(topic, data)
    except BadPayload:
        taken = False
    else:
        taken = True
    found = document(api)
    schema = {**found["channels"]["odd.tree.tree"]["messages"]["event"]["payload"], "components": found["components"]}
    assert jsonschema.Draft7Validator(schema).is_valid(json.loads(data)) is taken


def test_what_services_consume_types_a_topic_without_a_schema() -> None:
    found = document(DOCUMENTS["examples"])
    assert found["channels"].keys() == {
        "shop.orders.order.any",
        "shop.orders.order.placed",
        "shop.orders.order.reserved",
    }
    placed = found["channels"]["shop.orders.order.placed"]
    assert placed["messages"]["event"]["payload"] == {"$ref": "#/components/schemas/Order"}
    assert placed["x-topic-gateway-declared"] == "shop/orders/{order}/+"
    assert found["channels"]["shop.orders.order.any"]["messages"]["event"]["payload"] == {}
    of_services = {name: one for name, one in found["operations"].items() if one["tags"] == [{"name": "shop.stock"}]}
    assert {(one["action"], one["channel"]["$ref"]) for one in of_services.values()} == {
        ("receive", "#/channels/shop.orders.order.placed"),
        ("send", "#/channels/shop.orders.order.reserved"),
    }


def test_the_command_line_prints_it(official: jsonschema.Draft7Validator, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    env |= {"GATEWAY_APPS": "a_service:app", "PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), str(ROOT)])}
    program = (sys.executable, "-m", "gateway.cli", "topics", "--asyncapi")
    done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert official.is_valid(found)
    assert found["servers"]["websocket"]["host"] == "127.0.0.1:8080"
    assert "shop.stock.receive.shop.orders.order.placed" in found["operations"]


# --- the edge -------------------------------------------------------------------------------------------------------


async def test_an_edge_tells_each_what_he_may_use(log_server: str, official: jsonschema.Draft7Validator) -> None:
    async with running_edge(log_server, anonymous=True) as edge, httpx.AsyncClient(base_url=edge.http) as http:

        async def asked(kind: str = "", **headers: str) -> httpx.Response:
            if kind:
                headers["Authorization"] = f"Bearer {token('alice', kind=kind)}"
            return await http.get("/asyncapi.json", headers=headers)

        def patterns(answer: httpx.Response) -> set[str]:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            found = answer.json()
            assert official.is_valid(found)
            assert found["servers"]["websocket"]["host"] == f"127.0.0.1:{edge.port}"
            return {channel["x-topic-gateway-declared"] for channel in found["channels"].values()}

        nobody = await asked()
        assert patterns(nobody) == {"try/#"}
        assert patterns(await asked("operator")) == {topic.pattern for topic in TOPICS}
        assert patterns(await asked("user")) == {topic.pattern for topic in TOPICS}
        assert "receive.users.user.inbox" not in (await asked("user")).json()["operations"]
        assert (await http.get("/asyncapi.json", headers={"Authorization": "Bearer x"})).status_code == 401
        assert (await asked(Origin="https://elsewhere.example")).status_code == 403
        # Kept by the client, asked about again, and for one reader alone.
        assert nobody.headers["cache-control"] == "private, no-cache"
        tag = nobody.headers["etag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = await asked(**{"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert (await asked("user", **{"If-None-Match": tag})).status_code == 200
        assert (await http.head("/asyncapi.json")).headers["etag"] == tag
        other = await asked(Host="gateway.example")
        assert other.json()["servers"]["http"]["host"] == "gateway.example"
        assert other.headers["etag"] != tag


async def test_without_a_token_an_edge_that_wants_one_says_nothing(log_server: str) -> None:
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http) as http:
        assert (await http.get("/asyncapi.json")).status_code == 401
