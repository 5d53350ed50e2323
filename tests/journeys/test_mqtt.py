"""A reading reaches a browser: device, broker, bridge, log, edge, WebSocket and SSE; and what never gets so far."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from paho.mqtt.client import MQTTv5, MQTTv311
from paho.mqtt.enums import MQTTProtocolVersion

from gateway import limits
from gateway.adapters.child import Server
from gateway.bridge import Bridge
from gateway.core.declared import Topic
from tests.bridges import (
    STATUS,
    TELEMETRY,
    device,
    options,
    partition,
    pubacks,
    running_bridge,
    stored,
    through,
    until,
    value,
)
from tests.gateways import TOPICS, Running, client, running_edge, token
from tests.journeys.steps import step
from tests.servers import DEVICE, GATEWAY, Relay, eventually

Start = Callable[..., Server]


@pytest.fixture(params=["mosquitto", "iotcore_broker"])
def broker(request: pytest.FixtureRequest) -> Server:
    start: Start = request.getfixturevalue(request.param)
    return start()


async def sse(edge: Running, filter: str, ready: asyncio.Event, count: int) -> list[dict[str, Any]]:
    got: list[dict[str, Any]] = []
    headers = {"Authorization": f"Bearer {token()}"}
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream("GET", f"{edge.http}/topics/{filter}/events", headers=headers) as response,
    ):
        assert response.status_code == 200
        async for line in response.aiter_lines():
            ready.set()
            if line.startswith("data: "):
                got.append(json.loads(line[6:]))
                if len(got) == count:
                    break
    return got


# --- walk 1 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [MQTTv5, MQTTv311], ids=["mqtt5", "mqtt311"])
async def test_a_reading_reaches_a_browser(broker: Server, log_server: str, version: MQTTProtocolVersion) -> None:
    async with (
        running_edge(log_server) as edge,
        Relay(int(broker.url.rpartition(":")[2])) as relay,
        running_bridge(log_server, options(broker, **through(relay))) as bridge,
        client(edge.ws, token()) as browser,
    ):
        assert "subscribe" in await browser.ask("subscribe", channel="devices/+/telemetry")
        ready = asyncio.Event()
        dashboard = asyncio.create_task(sse(edge, "devices%2F%2B%2Ftelemetry", ready, 1), name="dashboard")
        await asyncio.wait_for(ready.wait(), 20)
        with device(broker, version=version) as pump:
            step(f"{DEVICE} publishes {TELEMETRY} at QoS 1; {broker.name} acknowledges it and hands it to the bridge")
            await pump.publish(TELEMETRY, b'{"temp":21.5}')
        (record,) = await until(bridge.log, 1)
        step(f"the log keeps it in {record.partition} at {record.epoch}-{record.offset}, with the id {record.event.id}")
        assert (record.event.data, record.event.meta.via) == (b'{"temp":21.5}', "mqtt")
        assert record.event.meta.producer == f"device:{DEVICE}"
        await eventually(lambda: pubacks(relay.sent[0]) == 1)
        step("the bridge acknowledged it to the broker, once")
        (push,) = await browser.until(1)
        step(f"a browser that watches devices/+/telemetry got {push['pub']['data']} with {push['pub']['tags']}")
        assert push["channel"] == "devices/+/telemetry"
        assert push["pub"]["data"] == {"temp": 21.5}
        assert push["pub"]["tags"]["topic"] == TELEMETRY
        assert push["pub"]["tags"]["id"] == record.event.id
        (shown,) = await asyncio.wait_for(dashboard, 20)
        step("and so did a dashboard, by SSE")
        assert shown["data"] == {"temp": 21.5}
        assert shown["tags"]["topic"] == TELEMETRY


async def test_the_acknowledgement_waits_for_the_append(broker: Server, fresh_log_server: Start) -> None:
    server = fresh_log_server()
    async with (
        Relay(int(broker.url.rpartition(":")[2])) as relay,
        running_bridge(server.url, options(broker, **through(relay))) as bridge,
    ):
        os.kill(server.pid, signal.SIGSTOP)
        step("the log server stands still")
        with device(broker) as pump:
            await pump.publish(TELEMETRY, *(b"%d" % n for n in range(5)))
            await eventually(lambda: value(bridge, "gateway_mqtt_received_total") == 5)
            assert bridge.client is not None
            await bridge.client.publish("try/mark", b"")  # answered: the broker has read all that we sent
            assert pubacks(relay.sent[0]) == 0
            step("five readings are with the bridge, and none is acknowledged")
        os.kill(server.pid, signal.SIGCONT)
        records = await until(bridge.log, 5)
        assert [r.event.data for r in records] == [b"0", b"1", b"2", b"3", b"4"]
        await eventually(lambda: pubacks(relay.sent[0]) >= 5)
        step("it goes on: the readings are in the log, in order, and acknowledged")


# --- what an event keeps of its message -----------------------------------------------------------------------------


async def test_properties_become_fields_and_headers(broker: Server, log_server: str) -> None:
    async with running_bridge(log_server, options(broker)) as bridge:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        with device(broker) as pump:
            await pump.publish(
                TELEMETRY,
                b"1",
                UserProperty=[("id", "boot-9-41"), ("traceparent", trace), ("unit", "°C"), ("boot", "9")],
                ContentType="application/json; charset=utf-8",
                ResponseTopic=f"devices/{DEVICE}/receipts",
                CorrelationData=b"\x00\x01",
            )
            await pump.publish(TELEMETRY, b"2", ContentType="application/vnd.acme.reading.v2+json")
        first, second = (record.event for record in await until(bridge.log, 2))
        assert first.id == "boot-9-41"
        assert (first.meta.traceparent, first.meta.headers) == (trace, {"unit": "°C", "boot": "9"})
        assert (first.meta.reply_to, first.meta.correlation) == (f"devices/{DEVICE}/receipts", b"\x00\x01")
        assert (first.meta.type, second.meta.type) == ("", "")
        assert second.id != first.id


async def test_bytes_that_are_no_text_are_not_kept_as_text(broker: Server, log_server: str) -> None:
    async with (
        running_edge(log_server) as edge,
        running_bridge(log_server, options(broker)),
        client(edge.ws, token()) as browser,
    ):
        await browser.ask("subscribe", channel="try/#")
        with device(broker, name=GATEWAY) as anyone:
            await anyone.publish("try/a", b"\xff", ContentType="text/plain")
            await anyone.publish("try/b", "é".encode(), ContentType="text/plain")
            await anyone.publish("try/c", b"", ContentType="")
        pubs = sorted((push["pub"] for push in await browser.until(3)), key=lambda pub: pub["tags"]["topic"])
        assert [(pub["data"], pub["tags"].get("content_type")) for pub in pubs] == [
            ("/w==", "application/octet-stream"),
            ("é", "text/plain"),
            ("", "application/octet-stream"),
        ]


async def test_pretty_printed_json_does_not_harm_watchers(broker: Server, log_server: str) -> None:
    async with (
        running_edge(log_server) as edge,
        running_bridge(log_server, options(broker)),
        client(edge.ws, token()) as browser,
    ):
        await browser.ask("subscribe", channel=TELEMETRY)
        with device(broker) as pump:
            await pump.publish(TELEMETRY, b'{\r\n  "a": [\n    1\n  ]\n}\n', b"2")
        pushes = await browser.until(2)
        assert [push["pub"]["data"] for push in pushes] == [{"a": [1]}, 2]


# --- retained -------------------------------------------------------------------------------------------------------


async def test_a_replay_is_told_from_an_equal_reading(broker: Server, log_server: str) -> None:
    with device(broker) as pump:
        await pump.publish(STATUS, b'"online"', retain=True)
        async with running_bridge(log_server, options(broker)) as bridge:
            await until(bridge.log, 1, STATUS)
            step("a status kept by the broker before the bridge came is in the log, once")
        async with running_bridge(log_server, options(broker)) as bridge:
            await pump.publish(TELEMETRY, b"1")
            await until(bridge.log, 1)
            assert len(await stored(bridge.log, STATUS)) == 1
            step("the bridge came back: it is not appended again")
            await pump.publish(STATUS, b'"online"', retain=True)
            await until(bridge.log, 2, STATUS)
            step("a live status with the retain flag and the same value is an event of its own")
        async with running_bridge(log_server, options(broker, client_id="another")) as bridge:
            await pump.publish(TELEMETRY, b"2")
            await until(bridge.log, 2)
            step("a session that the broker does not know is sent it again: acknowledged, and not appended")
            statuses = await stored(bridge.log, STATUS)
            assert [r.event.data for r in statuses] == [b'"online"', b'"online"']
            assert statuses[0].event.id != statuses[1].event.id
            assert value(bridge, "gateway_mqtt_received_total") == 2
            last = await bridge.log.last(partition(STATUS), [STATUS], 1)
            assert [r.event.id for r in last] == [statuses[1].event.id]


# --- the log is away ------------------------------------------------------------------------------------------------


async def test_the_broker_keeps_what_the_log_cannot_take(broker: Server, fresh_log_server: Start) -> None:
    server, window = fresh_log_server(), 20
    async with running_bridge(server.url, options(broker, receive_maximum=window)) as bridge:
        await asyncio.to_thread(server.kill)
        step("the log server is gone")
        with device(broker) as pump:
            await pump.publish(TELEMETRY, *(b"%d" % n for n in range(500)))
        assert bridge.client is not None
        await eventually(lambda: value(bridge, "gateway_mqtt_received_total") >= window)
        if broker.name == "mosquitto":
            await bridge.client.publish("try/mark", b"")  # answered: it has sent us all that it wants to
        assert bridge.inbound is not None
        held = sum(map(len, bridge.inbound.waiting.values()))
        # rumqttd ignores Receive Maximum: what it sends beyond it is not read, not even its answer to the mark.
        assert held <= window + 1
        assert value(bridge, "gateway_mqtt_received_total") <= window + 1
        step(f"the bridge holds {held} messages, the broker the rest; the bridge says why: {bridge.unready()}")
        assert any("log" in why for why in bridge.unready())
        await asyncio.to_thread(server.start)
        records = await until(bridge.log, 500)
        assert [int(r.event.data) for r in records] == list(range(500))
        step("it is back: all 500 readings are in the log, in order")
        await eventually(lambda: not bridge.unready())


async def test_readings_of_qos_0_are_bounded(
    mosquitto: Start, fresh_log_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MQTT_QOS0_WAITING", 50)
    server, broker = fresh_log_server(), mosquitto()
    async with running_bridge(server.url, options(broker)) as bridge:
        await asyncio.to_thread(server.kill)
        with device(broker) as pump:
            await pump.publish(TELEMETRY, *(b"%d" % n for n in range(80)), qos=0)
            await eventually(functools.partial(_is, bridge, "gateway_mqtt_received_total", 80))
            dropped = functools.partial(value, bridge, "gateway_mqtt_rejected_total", reason="qos0_overflow")
            assert dropped() == 30
            await asyncio.to_thread(server.start)
            assert [int(r.event.data) for r in await until(bridge.log, 50)] == list(range(50))
            await pump.publish(TELEMETRY, b"80", qos=0)
            await until(bridge.log, 51)
            assert dropped() == 30


async def _is(bridge: Bridge, name: str, wanted: float) -> bool:
    return value(bridge, name) == wanted


# --- the end --------------------------------------------------------------------------------------------------------


async def test_a_stop_under_load_doubles_nothing(mosquitto: Start, log_server: str) -> None:
    broker, count = mosquitto(), 2_000
    with device(broker) as pump:
        async with running_bridge(log_server, options(broker)) as bridge:
            sending = asyncio.create_task(pump.publish(TELEMETRY, *(b"%d" % n for n in range(count))), name="sending")
            await until(bridge.log, 100)
        async with running_bridge(log_server, options(broker)) as bridge:
            await sending
            records = await until(bridge.log, count)
            assert [int(r.event.data) for r in records] == list(range(count))
            assert max(Counter(r.event.id for r in records).values()) == 1


async def test_what_is_not_kept_passes_by(broker: Server, log_server: str) -> None:
    live = Topic(pattern="devices/{device}/progress", key="{device}", mqtt="in", ephemeral=True, read=("user",))
    topics, topic = (*TOPICS, live), f"devices/{DEVICE}/progress"
    async with (
        running_edge(log_server, topics) as edge,
        running_bridge(log_server, options(broker), topics) as bridge,
        client(edge.ws, token()) as browser,
    ):
        await browser.ask("subscribe", channel=topic)
        with device(broker, name=GATEWAY) as pump:
            await pump.publish(topic, b"50")
        (push,) = await browser.until(1)
        assert push["pub"]["data"] == 50
        assert await stored(bridge.log, topic, topics) == []
