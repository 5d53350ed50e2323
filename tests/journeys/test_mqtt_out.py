"""A command reaches a device: HTTP, log, bridge, broker; its answer reaches a browser; and what stands in the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311
from paho.mqtt.enums import MQTTProtocolVersion

from gateway.adapters.child import Server
from gateway.adapters.device_rights import rights
from gateway.core.declared import Declared
from gateway.core.mapping import TopicMap
from tests import servers
from tests.bridges import GROUP, buried, device, options, partition, running_bridge, stored, through, until, value
from tests.gateways import client, running_edge, token
from tests.journeys.commands import COMMAND, OUT, WANTED, append, begun, cursors, post, properties, told
from tests.journeys.steps import step
from tests.servers import DEVICE, DEVICE_PASSWORD, GATEWAY, USERS, Relay, eventually

Start = Callable[..., Server]

OTHER = "pump-8"


@pytest.fixture
def mosquitto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Mosquitto with two devices, and the rights that `OUT` gives them; ``more`` are lines of its ACL."""
    running: list[Server] = []
    monkeypatch.setitem(USERS, OTHER, DEVICE_PASSWORD)

    def start(more: str = "") -> Server:
        folder = tmp_path / f"mosquitto-{len(running)}"
        server = servers.broker(folder)
        running.append(server)
        with (folder / "acl").open("a") as acl:
            acl.write("\n".join([*rights(Declared(OUT), TopicMap([]), [DEVICE, OTHER]), more, ""]))
        server.restart()
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture(params=["mosquitto", "iotcore_broker"])
def broker(request: pytest.FixtureRequest) -> Server:
    start: Start = request.getfixturevalue(request.param)
    return start()


# --- there and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "version"),
    # rumqttd hands a 3.1.1 client no message that has properties of MQTT 5, and nothing after it.
    [("mosquitto", MQTTv5), ("mosquitto", MQTTv311), ("iotcore_broker", MQTTv5)],
    ids=["mosquitto-mqtt5", "mosquitto-mqtt311", "iotcore-mqtt5"],
)
async def test_a_command_reaches_a_device_and_its_answer_a_browser(
    request: pytest.FixtureRequest, log_server: str, kind: str, version: MQTTProtocolVersion
) -> None:
    broker: Server = request.getfixturevalue(kind)()
    async with (
        running_edge(log_server, OUT) as edge,
        running_bridge(log_server, options(broker), OUT) as bridge,
        client(edge.ws, token()) as browser,
    ):
        await eventually(lambda: begun(bridge.log))
        await browser.ask("subscribe", channel=f"devices/{DEVICE}/responses/open")
        with device(broker, version=version) as pump:
            await pump.subscribe(f"devices/{DEVICE}/commands/#")
            (id,) = await post(edge, COMMAND, {"valve": 3})
            step(f"an operator's POST is event {id}; the bridge publishes it to {broker.name}")
            (command,) = await pump.until(1)
            assert (command.topic, json.loads(command.payload)) == (COMMAND, {"valve": 3})
            assert (command.qos, command.retain) == (1, False)
            if version == MQTTv5:
                assert properties(command)["gw-id"] == id
                assert told(command, "ContentType") == "application/json"
            step(f"{DEVICE} got it, and answers on its own topic")
            await pump.publish(f"devices/{DEVICE}/responses/open", b'{"open":true}')
        (push,) = await browser.until(1)
        assert push["pub"]["data"] == {"open": True}
        step("the browser has the answer")
        await eventually(lambda: cursors(bridge.log))
        assert value(bridge, "gateway_mqtt_published_total") == 1


async def test_a_wanted_state_waits_for_who_comes_late(broker: Server, log_server: str) -> None:
    async with running_edge(log_server, OUT) as edge, running_bridge(log_server, options(broker), OUT) as bridge:
        await eventually(lambda: begun(bridge.log))
        await post(edge, WANTED, {"speed": 1}, {"speed": 2})
        await eventually(lambda: value(bridge, "gateway_mqtt_published_total") == 2)
        with device(broker) as pump:
            await pump.subscribe(WANTED)
            (message,) = await pump.until(1)
            assert (json.loads(message.payload), message.retain) == ({"speed": 2}, True)
        await post(edge, WANTED, b"")
        await eventually(lambda: value(bridge, "gateway_mqtt_published_total") == 3)
        with device(broker) as pump:
            await pump.subscribe(WANTED)
            await post(edge, WANTED, {"speed": 3})
            (message,) = await pump.until(1)
            step("an empty payload took the kept one away")
            assert (json.loads(message.payload), message.retain) == ({"speed": 3}, False)


async def test_what_is_known_of_an_event_goes_along(broker: Server, log_server: str) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with running_bridge(log_server, options(broker), OUT) as bridge:
        await eventually(lambda: begun(bridge.log))
        with device(broker) as pump:
            await pump.subscribe("devices/+/commands/#")
            await pump.subscribe("news/#")
            more = {"reply_to": f"devices/{DEVICE}/responses/open", "correlation": b"\x00\x01"}
            headers = {"unit": "°C", "gw-id": "somebody else's"}
            await append(bridge.log, COMMAND, b"1", headers=headers, traceparent=trace, **more)
            (one,) = await pump.until(1)
            (record,) = await stored(bridge.log, COMMAND, OUT)
            assert properties(one) == {"unit": "°C", "traceparent": trace, "gw-id": record.event.id}
            assert told(one, "ResponseTopic") == more["reply_to"]
            assert told(one, "CorrelationData") == more["correlation"]
            await append(bridge.log, COMMAND, b"2", reply_to="#gateway")
            await append(bridge.log, "news/today", "é".encode(), type="text/plain")
            _, two, three = await pump.until(3)
            assert told(two, "ResponseTopic") is None
            assert (three.payload.decode(), told(three, "ContentType")) == ("é", "text/plain")


# --- rights ---------------------------------------------------------------------------------------------------------


async def test_a_device_gets_its_own_commands_and_nobody_elses(mosquitto: Start, log_server: str) -> None:
    broker = mosquitto()
    async with running_edge(log_server, OUT) as edge, running_bridge(log_server, options(broker), OUT) as bridge:
        await eventually(lambda: begun(bridge.log))
        with device(broker) as mine, device(broker, name=OTHER) as other:
            for one in (mine, other):
                await one.subscribe("#")
                await one.subscribe(WANTED)
                await one.subscribe("devices/+/commands/#")
            step("both devices subscribe to everything; Mosquitto grants it, and asks again at each delivery")
            for name in (DEVICE, OTHER):
                await post(edge, f"devices/{name}/commands/open", name)
                await post(edge, f"devices/{name}/wanted", name)
            await post(edge, "news/end", b"end")
            for one, name in ((mine, DEVICE), (other, OTHER)):
                await eventually(lambda one=one: any(message.topic == "news/end" for message in one.got))
                topics = {message.topic for message in one.got}
                assert topics == {f"devices/{name}/commands/open", f"devices/{name}/wanted", "news/end"}
            step("each got its own, and the news that anyone may read")
            await mine.publish(f"devices/{OTHER}/commands/open", b'"forged"')
            await mine.publish("news/end", b"forged")
            await post(edge, "news/end", b"end")
            await eventually(lambda: sum(message.topic == "news/end" for message in other.got) >= 2)
            assert all(b"forged" not in message.payload for message in (*mine.got, *other.got))
            step("what goes down, no device may publish")


async def test_what_the_broker_refuses_is_a_dead_letter_and_can_be_replayed(mosquitto: Start, log_server: str) -> None:
    broker = mosquitto(f"user {GATEWAY}\ntopic deny {COMMAND}")
    topic = f"devices/{DEVICE}/commands/close"
    async with running_bridge(log_server, options(broker), OUT) as bridge:
        await eventually(lambda: begun(bridge.log))
        with device(broker) as pump:
            await pump.subscribe("devices/+/commands/#")
            await append(bridge.log, topic, b"1")
            await append(bridge.log, COMMAND, b"2")
            await append(bridge.log, topic, b"3")
            assert [message.payload for message in await pump.until(2)] == [b"1", b"3"]
            where = partition(COMMAND, OUT)

            async def letters() -> list[tuple[str, Any]]:
                return await bridge.log.dead(where)

            await eventually(lambda: letters())
            ((id, letter),) = await letters()
            assert (letter.reason, letter.topic, letter.data, letter.group) == (
                "refused_by_broker",
                COMMAND,
                b"2",
                GROUP,
            )
            assert "0x87" in letter.error
            step(f"refused, and a dead letter that says why: {letter.error}")
        acl = broker.log.parent / "acl"
        acl.write_text(acl.read_text().replace(f"topic deny {COMMAND}", ""))
        await asyncio.to_thread(broker.restart)
        with device(broker) as pump:
            await pump.subscribe("devices/+/commands/#")
            assert await bridge.log.groups.replay(where, GROUP, [id])
            (message,) = await pump.until(1)
            assert (message.payload, properties(message)["gw-id"]) == (b"2", letter.id)
            assert await buried(bridge.log, where) == []
            step("mended and replayed, it arrives with its own id")


# --- no loops -------------------------------------------------------------------------------------------------------


async def test_nothing_goes_round(broker: Server, log_server: str) -> None:
    async with running_bridge(log_server, options(broker), OUT) as bridge:
        await eventually(lambda: begun(bridge.log))
        with device(broker) as pump:
            await pump.subscribe("devices/+/commands/#")
            await append(bridge.log, COMMAND, b"1", via="mqtt")
            await append(bridge.log, COMMAND, b"2")
            (message,) = await pump.until(1)
            assert message.payload == b"2"
            step("what came by MQTT does not leave by MQTT")
            ours, answers = properties(message), f"devices/{DEVICE}/responses/open"
            await pump.publish(answers, b"2", UserProperty=list(ours.items()))
            await pump.publish(answers, b'"done"', UserProperty=list(ours.items()))
            records = await until(bridge.log, 1, answers, OUT)
            assert [record.event.data for record in records] == [b'"done"']
            assert value(bridge, "gateway_mqtt_rejected_total", reason="echo") == 1
            step("a message of ours that comes back is dropped; an answer that copies our properties is not")


# --- the broker is away or slow -------------------------------------------------------------------------------------


async def test_the_log_keeps_what_the_broker_cannot_take(broker: Server, log_server: str) -> None:
    async with (
        Relay(int(broker.url.rpartition(":")[2])) as relay,
        running_bridge(log_server, options(broker, **through(relay)), OUT) as bridge,
    ):
        await eventually(lambda: begun(bridge.log))
        with device(broker) as pump:
            await pump.subscribe("devices/+/commands/#")
            await append(bridge.log, COMMAND, b"0")
            await pump.until(1)
            await eventually(lambda: cursors(bridge.log))  # the broker took it, and the bridge has heard so
            port, relay._target = relay._target, 1  # nobody listens there
            relay.cut()
            await eventually(lambda: bridge.unready())
            step(f"the broker is away, and the bridge says so: {bridge.unready()}")
            await append(bridge.log, COMMAND, *(b"%d" % n for n in range(1, 501)))
            assert not await cursors(bridge.log)
            relay._target = port
            await pump.until(501)
            assert [int(message.payload) for message in pump.got] == list(range(501))
            step("it is back: all 500 commands arrive, in order")
            await eventually(lambda: cursors(bridge.log))
