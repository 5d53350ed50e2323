"""What the bridge makes of what devices send: refused and buried, mapped, decoded; and the queue moves on."""

from __future__ import annotations

import json
from collections.abc import Callable

import cbor2
import msgpack
import msgspec
import pytest

from gateway import limits
from gateway.adapters.child import Server
from gateway.core.declared import Topic
from gateway.core.mapping import Rule, TopicMap
from tests.bridges import (
    TELEMETRY,
    buried,
    device,
    options,
    partition,
    pubacks,
    running_bridge,
    through,
    until,
    until_buried,
    value,
)
from tests.gateways import TOPICS, client, running_edge, token
from tests.servers import DEVICE, GATEWAY, Relay, eventually

Start = Callable[..., Server]


@pytest.fixture(params=["mosquitto", "iotcore_broker"])
def broker(request: pytest.FixtureRequest) -> Server:
    start: Start = request.getfixturevalue(request.param)
    return start()


# --- what is refused ------------------------------------------------------------------------------------------------

SMALL = Topic(pattern="devices/{device}/events/{kind}", key="{device}", mqtt="in", max_bytes=100)
EVENT = f"devices/{DEVICE}/events/alarm"
MALFORMED = {
    "not JSON": (TELEMETRY, b"21.5 C", "schema"),
    "nothing": (TELEMETRY, b"", "schema"),
    "a key twice": (TELEMETRY, b'{"a":1,"a":2}', "schema"),
    "too deep": (TELEMETRY, b"[" * 10_000 + b"]" * 10_000, "schema"),
    "not UTF-8": (TELEMETRY, b'{"a":"\xff"}', "schema"),
    "a lone surrogate": (TELEMETRY, b'{"a":"\\ud800"}', "schema"),
    "a number of 400 digits": (TELEMETRY, b"1" * 400, "schema"),
    "too large for the topic": (EVENT, b'"' + b"x" * 100 + b'"', "too_large"),
    "too large for any": (TELEMETRY, b'"' + b"x" * limits.PAYLOAD_BYTES + b'"', "too_large"),
}


async def test_malformed_payloads_are_buried_and_the_queue_moves_on(broker: Server, log_server: str) -> None:
    topics = (*TOPICS, SMALL)
    async with (
        Relay(int(broker.url.rpartition(":")[2])) as relay,
        running_bridge(log_server, options(broker, **through(relay)), topics) as bridge,
    ):
        with device(broker) as pump:
            for topic, payload, _ in MALFORMED.values():
                await pump.publish(topic, payload)
            await pump.publish(TELEMETRY, b"1", UserProperty=[("id", "x" * 200)])
            await pump.publish(TELEMETRY, b"1", UserProperty=[(str(n), "") for n in range(limits.HEADERS + 1)])
            await pump.publish(TELEMETRY, b"1", ContentType="image/png")
            await pump.publish(TELEMETRY, b"42")
        (good,) = await until(bridge.log, 1)
        assert good.event.data == b"42"
        wanted = [*MALFORMED.values(), *[(TELEMETRY, b"1", "schema")] * 3]
        letters = await until_buried(bridge.log, len(wanted), partition(TELEMETRY, topics))
        assert [(one.topic, one.data, one.reason) for one in letters] == wanted
        assert all(one.error and one.ts and one.producer == "mqtt" for one in letters)
        await eventually(lambda: pubacks(relay.sent[0]) == len(wanted) + 1)


async def test_strays_are_sampled_and_counted(broker: Server, log_server: str) -> None:
    # Two filters that overlap are subscribed to as one, devices/+/+, which lets strays through.
    literal = Topic(pattern=f"devices/{DEVICE}/{{what}}", mqtt="in")
    topics = (*TOPICS, literal)
    async with running_bridge(log_server, options(broker), topics) as bridge:
        assert "devices/+/+" in bridge.filters
        with device(broker, name=GATEWAY) as anyone:
            await anyone.publish("devices/x/nothing", *(b"%d" % n for n in range(100)))
            await anyone.publish(TELEMETRY, b"1")
        await until(bridge.log, 1, TELEMETRY, topics)
        await eventually(lambda: value(bridge, "gateway_mqtt_received_total") >= 101)
        assert value(bridge, "gateway_mqtt_rejected_total", reason="undeclared") == 100
        letters = await buried(bridge.log, "gateway.0")
        assert len(letters) + bridge.left_out == 100
        assert limits.STRAYS_PER_SECOND <= len(letters) < 100
        assert {(one.topic, one.reason) for one in letters} == {("devices/x/nothing", "undeclared")}
        # And what passes both filters came once.
        assert value(bridge, "gateway_mqtt_received_total") == 101


# --- old fleets, other encodings ------------------------------------------------------------------------------------


async def test_burnt_in_topics_are_mapped(broker: Server, log_server: str) -> None:
    rules = TopicMap([Rule("tele/{device}/SENSOR", "devices/{device}/telemetry")])
    async with running_bridge(log_server, options(broker), topic_map=rules) as bridge:
        with device(broker, name=GATEWAY) as old:
            await old.publish(f"tele/{DEVICE}/SENSOR", b'{"t":1}', b"no json")
        (record,) = await until(bridge.log, 1)
        assert (record.event.topic, record.event.meta.producer) == (TELEMETRY, f"device:{DEVICE}")
        (letter,) = await until_buried(bridge.log, 1, partition(TELEMETRY))
        assert (letter.topic, letter.data) == (f"tele/{DEVICE}/SENSOR", b"no json")


def _from_cbor(data: bytes) -> bytes:
    return msgspec.json.encode(cbor2.loads(data))


def _from_msgpack(data: bytes) -> bytes:
    return msgspec.json.encode(msgpack.unpackb(data))


def _broken(data: bytes) -> bytes:
    raise KeyError(data)  # the mistake of an application


def _not_bytes(data: bytes) -> bytes:
    return "{}"  # type: ignore[return-value]  # the mistake of another application


DECODERS = {
    "application/cbor": _from_cbor,
    "application/msgpack": _from_msgpack,
    "application/broken": _broken,
    "application/not-bytes": _not_bytes,
}


async def test_other_encodings_are_json_in_the_log(broker: Server, log_server: str) -> None:
    reading = {"temp": 21.5, "tags": ["a"]}
    bad = {
        "application/cbor": b"\xa1",  # ends too early
        "application/msgpack": b"\xc1",
        "application/broken": b"x",
        "application/not-bytes": b"x",
    }
    async with running_bridge(log_server, options(broker), decoders=DECODERS) as bridge:
        with device(broker) as pump:
            await pump.publish(TELEMETRY, cbor2.dumps(reading), ContentType="application/cbor")
            await pump.publish(TELEMETRY, msgpack.packb(reading), ContentType="application/msgpack")
            for kind, data in bad.items():
                await pump.publish(TELEMETRY, data, ContentType=kind)
            await pump.publish(TELEMETRY, b"1")
        records = await until(bridge.log, 3)
        assert [json.loads(r.event.data) for r in records] == [reading, reading, 1]
        assert [r.event.meta.was for r in records] == ["application/cbor", "application/msgpack", ""]
        assert {r.event.meta.type for r in records} == {""}
        letters = await until_buried(bridge.log, len(bad), partition(TELEMETRY))
        assert {one.meta.type: one.data for one in letters} == bad
        assert {one.reason for one in letters} == {"schema"}


async def test_what_a_device_sends_twice_is_one_event(broker: Server, log_server: str) -> None:
    counted = Topic(
        pattern="devices/{device}/events/{kind}",
        key="{device}",
        identity="{device}/{boot}/{seq}",
        mqtt="in",
        read=("user",),
    )
    topic, topics = EVENT, (*TOPICS, counted)
    async with (
        running_bridge(log_server, options(broker), topics) as bridge,
        running_edge(log_server, topics) as edge,
        client(edge.ws, token()) as watcher,
    ):
        await watcher.ask("subscribe", channel=topic)
        with device(broker) as pump:
            for seq in (1, 2, 2, 1, 3):
                await pump.publish(topic, b'{"boot":"b1","seq":%d}' % seq)
        kept = await until(bridge.log, 5, topic, topics)
        assert [r.event.id for r in kept] == [f"{DEVICE}/b1/{seq}" for seq in (1, 2, 2, 1, 3)]
        assert [p["pub"]["data"]["seq"] for p in await watcher.until(3)] == [1, 2, 3]
