"""The document of what a gateway offers: what it says of each topic, from whose side, and to whom."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway import limits
from gateway.core.access import ANONYMOUS, Principal
from gateway.core.asyncapi import AsyncApi, Reached
from gateway.core.catalogue import Consumed, Participant
from gateway.core.declared import Declared, Topic

AT = Reached("gateway.example", False, "/ws")


class Order(msgspec.Struct):
    item: str


TOPICS = (
    Topic(pattern="shop/orders/{order}/+", write=("user",), read=("user:{order}", "operator"), key="{order}"),
    Topic(pattern="shop/prices/#", write=("service:shop.stock",), read=("anyone",), payload="text", retain=True),
    Topic(pattern="shop/audit", history=False, kind="command", max_bytes=99),
    Topic(pattern="devices/{device}/raw", app="fleet", payload="bytes", mqtt="in", write=("device:{device}",)),
    Topic(pattern="shop/now", ephemeral=True, schema=Order, read=("user:bob",)),
)
STOCK = Participant("shop.stock", (Consumed("shop/orders/{id}/placed", Order),), ("shop/audit",))


def api(**more: Any) -> AsyncApi:
    return AsyncApi(Declared(TOPICS), participants=[STOCK], durability={"shop": "disk"}, **more)


def told(who: Principal | None = None, of: AsyncApi | None = None, at: Reached = AT) -> Any:
    return json.loads((of or api()).document(who, at).body)


def test_a_topic_is_a_channel_with_its_variables() -> None:
    found = told(of=api(title="shop", version="3"))
    assert found["asyncapi"] == "3.0.0"
    assert (found["info"]["title"], found["info"]["version"]) == ("shop", "3")
    channel = found["channels"]["shop.orders.order.any"]
    assert channel["address"] == "shop/orders/{order}/{level_4}"
    assert channel["parameters"].keys() == {"order", "level_4"}
    assert channel["parameters"]["level_4"]["x-topic-gateway-wildcard"] == "+"
    assert channel["x-topic-gateway-filter"] == "shop/orders/+/+"
    assert channel["x-topic-gateway-declared"] == "shop/orders/{order}/+"
    assert (channel["x-topic-gateway-key"], channel["x-topic-gateway-durability"]) == ("{order}", "disk")
    assert channel["tags"] == [{"name": "shop"}]
    rest = found["channels"]["shop.prices.rest"]
    assert rest["address"] == "shop/prices/{rest}"
    assert rest["parameters"]["rest"]["x-topic-gateway-wildcard"] == "#"
    assert rest["x-topic-gateway-retain"] is True
    audit = found["channels"]["shop.audit"]
    assert (audit["x-topic-gateway-kind"], audit["x-topic-gateway-history"]) == ("command", False)
    assert audit["messages"]["event"]["x-topic-gateway-max-bytes"] == 99
    assert "parameters" not in audit
    assert found["channels"]["shop.now"]["x-topic-gateway-durability"] == "none"


def test_a_wildcard_gets_no_name_that_is_taken() -> None:
    found = told(of=AsyncApi(Declared([Topic(pattern="a/{rest}/{level_4}/+/#")])))
    (channel,) = found["channels"].values()
    assert channel["address"] == "a/{rest}/{level_4}/{level_4_}/{rest_}"


def test_a_message_has_the_type_of_its_payload() -> None:
    found = told()
    messages = {id: channel["messages"]["event"] for id, channel in found["channels"].items()}
    assert {id: (one["contentType"], one["payload"]) for id, one in messages.items()} == {
        "devices.device.raw": ("application/octet-stream", {"type": "string", "format": "binary"}),
        "shop.audit": ("application/json", {}),
        "shop.now": ("application/json", {"$ref": "#/components/schemas/Order"}),
        "shop.orders.order.any": ("application/json", {}),
        "shop.orders.order.placed": ("application/json", {"$ref": "#/components/schemas/Order"}),
        "shop.prices.rest": ("text/plain", {"type": "string"}),
    }
    assert found["components"]["schemas"].keys() == {"Order"}


def test_what_several_services_take_pleases_each_of_them() -> None:
    takers = [Participant(f"a.{type.__name__}", (Consumed("a", type),)) for type in (Order, dict)]
    found = told(of=AsyncApi(Declared([Topic(pattern="a")]), participants=takers))
    payload = found["channels"]["a"]["messages"]["event"]["payload"]
    assert payload == {"allOf": [{"$ref": "#/components/schemas/Order"}, {"type": "object"}]}


def test_the_gateway_receives_what_clients_publish_and_sends_what_they_watch() -> None:
    found = told()["operations"]
    assert {(name, one["action"], tuple(one.get("x-topic-gateway-grants", ()))) for name, one in found.items()} == {
        ("receive.shop.orders.order.any", "receive", ("user",)),
        ("send.shop.orders.order.any", "send", ("user:{order}", "operator")),
        ("receive.shop.orders.order.placed", "receive", ("user",)),
        ("send.shop.orders.order.placed", "send", ("user:{order}", "operator")),
        ("shop.stock.receive.shop.orders.order.placed", "receive", ()),
        ("receive.shop.prices.rest", "receive", ("service:shop.stock",)),
        ("send.shop.prices.rest", "send", ("anyone",)),
        ("shop.stock.send.shop.audit", "send", ()),
        ("receive.devices.device.raw", "receive", ("device:{device}",)),
        ("send.shop.now", "send", ("user:bob",)),
    }
    assert found["receive.devices.device.raw"]["bindings"].keys() == {"http", "mqtt"}
    assert found["receive.shop.orders.order.any"]["bindings"].keys() == {"http"}
    assert found["shop.stock.send.shop.audit"]["tags"] == [{"name": "shop.stock"}]


def test_a_token_is_asked_for_where_anonymous_clients_may_not() -> None:
    token = [{"$ref": "#/components/securitySchemes/bearer"}]
    for anonymous in (False, True):
        found = told(of=api(anonymous=anonymous))
        assert found["operations"]["receive.shop.orders.order.any"]["security"] == token
        assert found["operations"]["send.shop.prices.rest"].get("security") == (None if anonymous else token)
        assert found["servers"]["http"].get("security") == (None if anonymous else token)


@pytest.mark.parametrize(
    ("who", "channels", "operations"),
    [
        (ANONYMOUS, {"shop.prices.rest"}, {"send.shop.prices.rest"}),
        (
            Principal("service", "shop.stock"),
            {"shop.prices.rest"},
            {"send.shop.prices.rest", "receive.shop.prices.rest"},
        ),
        (Principal("service", "other"), {"shop.prices.rest"}, {"send.shop.prices.rest"}),
        (
            Principal("device", "7"),
            {"shop.prices.rest", "devices.device.raw"},
            {"send.shop.prices.rest", "receive.devices.device.raw"},
        ),
        (
            Principal("user", "bob"),
            {"shop.prices.rest", "shop.now", "shop.orders.order.any", "shop.orders.order.placed"},
            {
                "send.shop.prices.rest",
                "send.shop.now",
                "receive.shop.orders.order.any",
                "send.shop.orders.order.any",
                "receive.shop.orders.order.placed",
                "send.shop.orders.order.placed",
            },
        ),
    ],
    ids=str,
)
def test_nobody_reads_of_what_he_may_not_use(who: Principal, channels: set[str], operations: set[str]) -> None:
    found = told(who)
    assert found["channels"].keys() == channels
    assert found["operations"].keys() == operations
    assert ("Order" in json.dumps(found)) is ("shop.now" in channels)


def test_an_operator_sees_all() -> None:
    one = api()
    assert one.document(Principal("operator", "eve"), AT) == one.document(None, AT)
    assert told(Principal("user", "eve"))["channels"].keys() < told()["channels"].keys()


@pytest.mark.parametrize(("mqtt", "protocol"), [("mqtt://b:1883", "mqtt"), ("mqtts://u:p@b:1883", "secure-mqtt")])
def test_the_servers_are_those_that_the_reader_reaches(mqtt: str, protocol: str) -> None:
    plain, secure = told(of=api(mqtt=mqtt)), told(of=api(mqtt=mqtt), at=Reached("h:1", True, "/ws"))
    shown = {name: (one["protocol"], one["host"], one.get("pathname")) for name, one in secure["servers"].items()}
    assert shown == {
        "websocket": ("wss", "h:1", "/ws"),
        "http": ("https", "h:1", "/topics"),
        "mqtt": (protocol, "b:1883", None),
    }
    assert (plain["servers"]["websocket"]["protocol"], plain["servers"]["http"]["protocol"]) == ("ws", "http")
    assert "mqtt" not in told()["servers"]
    doors = {id: [one["$ref"] for one in channel["servers"]] for id, channel in plain["channels"].items()}
    assert doors["devices.device.raw"] == ["#/servers/websocket", "#/servers/http", "#/servers/mqtt"]
    assert doors["shop.now"] == ["#/servers/websocket", "#/servers/http"]


def test_a_document_is_encoded_once_for_all_who_may_do_the_same() -> None:
    one = api()
    alice, bob = Principal("user", "alice"), Principal("user", "bob")
    first = one.document(alice, AT)
    assert one.document(Principal("user", "carol"), AT) == first
    assert len(one._encoded) == 1
    assert one.document(bob, AT).etag != first.etag
    assert one.document(alice, Reached("other", False, "/ws")).etag != first.etag
    assert len(one._encoded) == 2
    assert api().document(alice, AT) == first


def test_documents_are_kept_up_to_a_bound() -> None:
    count = limits.DOCUMENTS + 1
    one = AsyncApi(Declared([Topic(pattern=f"a/{n}", read=(f"user:{n}",)) for n in range(count)]))
    made = [one.document(Principal("user", str(n)), AT) for n in range(count)]
    assert len(one._encoded) == 1
    assert one.document(Principal("user", "0"), AT) == made[0]


def test_a_channel_says_whether_one_may_ask_who_is_there() -> None:
    declared = Declared(
        [Topic(pattern="lobby/{room}", read=("user",), presence=True), Topic(pattern="log", read=("user",))]
    )
    found = told(of=AsyncApi(declared))["channels"].values()
    assert [channel.get("x-topic-gateway-presence", False) for channel in found] == [True, False]


def test_who_is_denied_is_named_and_sees_no_more_than_he_may_use() -> None:
    of = AsyncApi(
        Declared(
            [
                Topic(pattern="a/#", deny_read=("user:bob",), deny_write=("device",)),
                Topic(pattern="a/{user}/inbox", read=("user",), write=("user",), deny_read=("user:{user}",)),
                Topic(pattern="a/open", read=("user",), write=("device", "user")),
            ]
        )
    )
    grants = told(of=of)["operations"]
    assert grants["send.a.user.inbox"]["x-topic-gateway-denials"] == ["user:bob", "user:{user}"]
    assert grants["receive.a.user.inbox"]["x-topic-gateway-denials"] == ["device"]
    everything = {"send.a.user.inbox", "receive.a.user.inbox", "send.a.open", "receive.a.open"}
    assert told(Principal("user", "alice"), of)["operations"].keys() == everything  # her own is not all of it
    assert told(Principal("user", "bob"), of)["operations"].keys() == {"receive.a.user.inbox", "receive.a.open"}
    assert told(Principal("device", "7"), of)["operations"] == {}
