"""Declarations change under a running edge and a running bridge: who may, and what is carried, shown by delivery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.adapters.child import Server
from gateway.adapters.mqtt import Options
from gateway.core.asyncapi import AsyncApi
from gateway.core.declared import Declared, Topic
from gateway.core.mapping import Rule, TopicMap
from gateway.errors import Misconfigured
from tests.bridges import COMMANDS, TELEMETRY, buried, device, options, running_bridge, stored, until
from tests.gateway.test_mqtt_client import peer
from tests.gateways import TOPICS, Client, Running, client, running_edge, token
from tests.servers import DEVICE, eventually

ROOM, END = "rooms/1/messages", "users/bob/inbox"


def without(pattern: str, *more: Topic) -> list[Topic]:
    return [*(topic for topic in TOPICS if topic.pattern != pattern), *more]


def redeclare(edge: Running, topics: Sequence[Topic]) -> tuple[int, int]:
    declared = Declared(topics)
    return edge.edge.redeclare(declared, AsyncApi(declared))


def heard(one: Client) -> list[Any]:
    return [push["pub"]["data"] for push in one.pushes if "pub" in push]


def left(one: Client) -> list[tuple[str, int]]:
    return [(push["channel"], push["unsubscribe"]["code"]) for push in one.pushes if "unsubscribe" in push]


async def says(edge: Running, data: Any, topic: str = ROOM, who: str = "root") -> int:
    headers = {"authorization": f"Bearer {token(who, kind='operator')}"}
    async with httpx.AsyncClient(base_url=edge.http, headers=headers) as http:
        return (await http.post(f"/topics/{topic}", json=data)).status_code


NO_BOB = without(
    "rooms/{room}/messages",
    Topic(
        pattern="rooms/{room}/messages",
        write=("user", "operator"),
        read=("user",),
        deny_read=("user:bob",),
        deny_write=("user:bob",),
    ),
)


async def test_who_may_read_no_more_is_unsubscribed_and_may_come_back_for_what_he_missed(log_server: str) -> None:
    async with running_edge(log_server) as edge, client(edge.ws, token("alice")) as alice:
        async with client(edge.ws, token("bob")) as bob:
            await alice.ask("subscribe", channel=ROOM)
            await bob.ask("subscribe", channel=ROOM)
            await bob.ask("subscribe", channel=END)
            at = (await bob.ask("history", channel=ROOM, limit=0))["history"]
            assert redeclare(edge, NO_BOB) == (1, 0)
            assert await says(edge, "not for bob") == 201
            await bob.until(1)
            assert left(bob) == [(ROOM, 2000)]
            assert [
                (await bob.ask(how, channel=ROOM, data=1))["error"]["code"] for how in ("subscribe", "publish")
            ] == [
                103,
                103,
            ]
            await eventually(lambda: heard(alice) == ["not for bob"])
            # What reaches him later came after it: it was not on its way to him.
            assert await says(edge, "end", END) == 201
            await eventually(lambda: heard(bob))
            assert heard(bob) == ["end"]
            assert redeclare(edge, TOPICS) == (0, 0)
            again = await bob.ask("subscribe", channel=ROOM, recover=True, epoch=at["epoch"], offset=at["offset"])
            assert again["subscribe"]["recovered"]
            assert [pub["data"] for pub in again["subscribe"]["publications"]] == ["not for bob"]
            assert left(alice) == []


async def test_what_is_new_below_a_wildcard_comes(log_server: str) -> None:
    notes = Topic(pattern="devices/{device}/notes", write=("operator",), read=("user",))
    async with running_edge(log_server) as edge, client(edge.ws, token()) as alice:
        reply = await alice.ask("subscribe", channel="devices/7/#")
        assert reply["subscribe"]["recoverable"]
        await alice.ask("subscribe", channel="rooms/#")
        assert await says(edge, 1, "devices/7/notes") == 404
        # Notes may stand in any partition: who watches the whole device is sent to ask again.
        votes = Topic(pattern="rooms/{room}/votes", write=("operator",), read=("user",))
        assert redeclare(edge, [*TOPICS, notes, votes]) == (0, 1)
        await alice.until(1)
        assert left(alice) == [("devices/7/#", 2500)]
        assert "recoverable" not in (await alice.ask("subscribe", channel="devices/7/#"))["subscribe"]
        assert await says(edge, "noted", "devices/7/notes") == 201
        assert await says(edge, "voted", "rooms/1/votes") == 201
        await eventually(lambda: sorted(heard(alice)) == ["noted", "voted"])
        # A topic that goes takes its subscription with it.
        await alice.ask("subscribe", channel="devices/7/notes")
        assert redeclare(edge, [*TOPICS, votes]) == (1, 1)
        await eventually(lambda: sorted(left(alice)[1:]) == [("devices/7/#", 2500), ("devices/7/notes", 2000)])


async def test_a_stream_ends_with_its_right(log_server: str) -> None:
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http, timeout=30) as http:
        path = "/topics/rooms%2F1%2Fmessages/events"
        bob, alice = ({"authorization": f"Bearer {token(who)}"} for who in ("bob", "alice"))
        async with http.stream("GET", path, headers=bob) as his, http.stream("GET", path, headers=alice) as hers:
            lines, blocks = his.aiter_lines(), hers.aiter_lines()
            for stream in (lines, blocks):
                await anext(line async for line in stream if line.startswith("id: "))
            assert redeclare(edge, NO_BOB) == (1, 0)
            assert await says(edge, "after") == 201
            assert "after" not in "".join([line async for line in lines])  # it has an end
            await anext(line async for line in blocks if "after" in line)
        assert (await http.get(path, headers=bob)).status_code == 403


async def test_a_subscription_on_its_way_is_decided_again(log_server: str) -> None:
    """However far it came: after the change nothing reaches who may not, and every command is answered."""
    async with (
        running_edge(log_server) as edge,
        client(edge.ws, token("bob")) as bob,
        client(edge.ws, token("alice")) as alice,
    ):
        await bob.ask("subscribe", channel=END)
        await alice.ask("subscribe", channel=ROOM)
        for turns in range(25):
            asked = asyncio.create_task(bob.ask("subscribe", channel=ROOM))
            for _ in range(turns):
                await asyncio.sleep(0)
            redeclare(edge, NO_BOB)
            reply = await asked
            before = len(left(bob))
            assert await says(edge, f"secret {turns}") == 201
            assert (await bob.ask("subscribe", channel=ROOM))["error"]["code"] == 103, (turns, reply, before)
            # It has passed: what the edge reads after this change he may have.
            await eventually(lambda turns=turns: heard(alice)[-1:] == [f"secret {turns}"])
            redeclare(edge, TOPICS)
        assert await says(edge, "end", END) == 201
        await eventually(lambda: heard(bob))
        assert heard(bob) == ["end"]


# --- the bridge -------------------------------------------------------------------------------------------------------

EVENTS = Topic(pattern="devices/{device}/events/{name}", key="{device}", write=("device:{device}",), mqtt="in")
EVENT = f"devices/{DEVICE}/events/opened"
STATE = Topic(pattern="devices/{device}/states", key="{device}", mqtt="in")


async def test_a_bridge_takes_more_and_less_and_loses_nothing_meanwhile(
    mosquitto: Callable[[], Server], log_server: str
) -> None:
    broker, sent, more = mosquitto(), 0, [*TOPICS, EVENTS, STATE]
    rules = TopicMap([Rule("devices/{device}/state/old", "devices/{device}/states")])
    async with running_bridge(log_server, options(broker)) as bridge:
        with device(broker) as pump:

            @asynccontextmanager
            async def at_work() -> AsyncIterator[None]:
                nonlocal sent
                numbers, sent = range(sent, sent + 40), sent + 40
                busy = asyncio.create_task(pump.publish(TELEMETRY, *(b"%d" % n for n in numbers)), name="measures")
                await until(bridge.log, numbers[0] + 1)
                yield
                await busy

            for n in range(4):
                async with at_work():
                    assert "subscribed to devices/+/events/+" in await bridge.redeclare(Declared(more), rules)
                await pump.publish(EVENT, b"%d" % n)
                await pump.publish(f"devices/{DEVICE}/state/old", b"%d" % n)
                await until(bridge.log, n + 1, EVENT, more)
                await until(bridge.log, n + 1, f"devices/{DEVICE}/states", more)
                async with at_work():
                    assert "left devices/+/events/+" in await bridge.redeclare(Declared(TOPICS), TopicMap([]))
            await pump.publish(EVENT, b"nobody asked")
            await pump.publish(TELEMETRY, b"%d" % sent)
            kept = [int(record.event.data) for record in await until(bridge.log, sent + 1)]
            assert kept == list(range(sent + 1))
            assert [r.event.data for r in await stored(bridge.log, EVENT, more)] == [b"%d" % n for n in range(4)]
            assert await buried(bridge.log, "gateway.0") == []


async def test_what_the_broker_refuses_changes_nothing(log_server: str) -> None:
    async with peer() as broker:
        to = Options(f"mqtt://127.0.0.1:{broker.port}", "bridge-refused")
        async with running_bridge(log_server, to, [EVENTS]) as bridge:
            broker.suback = 0x87
            with pytest.raises(Misconfigured, match=r"refused the filter devices/\+/states"):
                await bridge.redeclare(Declared([EVENTS, STATE]), TopicMap([]))
            assert bridge.filters == ("devices/+/events/+",)
            broker.suback = 1
            await bridge.redeclare(Declared([STATE]), TopicMap([]))
            assert bridge.filters == ("devices/+/states",)


async def test_a_bridge_without_its_broker_begins_with_what_is_declared_by_then(log_server: str) -> None:
    async with peer() as broker:
        port = broker.port
    async with running_bridge(
        log_server, Options(f"mqtt://127.0.0.1:{port}", "bridge-late"), [EVENTS], wait=False
    ) as one:
        await eventually(lambda: one.client, within=30)
        assert await one.redeclare(Declared([STATE]), TopicMap([]))
        assert one.filters == ("devices/+/states",)


async def test_a_topic_that_begins_to_leave_leaves(mosquitto: Callable[[], Server], log_server: str) -> None:
    broker = mosquitto()
    topics = [*TOPICS, COMMANDS]
    async with running_edge(log_server, topics) as edge, running_bridge(log_server, options(broker)) as bridge:
        with device(broker) as pump:
            await pump.subscribe(f"devices/{DEVICE}/commands/#")
            await bridge.redeclare(Declared(topics), TopicMap([]))
            await eventually(lambda: not bridge.unready(), within=30)
            assert await says(edge, 1, f"devices/{DEVICE}/commands/stop") == 201
            (got,) = await pump.until(1)
            assert (got.topic, got.payload) == (f"devices/{DEVICE}/commands/stop", b"1")
            await bridge.redeclare(Declared(TOPICS), TopicMap([]))
            assert await says(edge, 2, f"devices/{DEVICE}/commands/stop") == 201
            await bridge.redeclare(Declared(topics), TopicMap([]))
            await eventually(lambda: not bridge.unready(), within=30)
            assert await says(edge, 3, f"devices/{DEVICE}/commands/stop") == 201
            assert (await pump.until(2))[-1].payload in (b"2", b"3")
