"""What the bridge needs of a broker, asked of each one; where rumqttd differs, the difference is what is tested."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import mqtt5
import msgspec
import pytest
import uvloop
from paho.mqtt.client import MQTTv311
from paho.mqtt.publish import single as publish_once

from gateway import limits
from gateway.adapters.child import Server
from gateway.adapters.mqtt import Message, MqttClient, Options
from gateway.errors import GatewayError, Misconfigured, TooLarge, Unavailable
from tests.bridges import device
from tests.servers import DEVICE, DEVICE_PASSWORD, GATEWAY, GATEWAY_PASSWORD, Relay, eventually

TOPIC = f"devices/{DEVICE}/telemetry"
FILTER = "devices/+/telemetry/#"


#: Where rumqttd falls short of MQTT 5 or of Mosquitto -> what it does instead. Each is asserted below, so that a
#: better version is noticed.
RUMQTTD_LACKS = {
    "receive maximum": "sends up to its own max_inflight_count, and answers nothing else while that is full",
    "redelivery mark": "sends again with new packet ids and DUP = 0",
    "persistence": "forgets sessions and messages over a restart",
    "no subscriber": "acknowledges with 0 what nobody will get",
    "rights": "lets every user write every topic",
    "lower qos": "delivers a QoS 0 message at the QoS of the subscription",
    "maximum packet": "announces none, and closes the connection of who sends more",
    "refusal": "closes the connection instead of refusing it with a reason",
    "properties for 3.1.1": "ends the connection of a 3.1.1 client that would get a message with properties of MQTT 5",
}


class Broker(msgspec.Struct, frozen=True):
    """A running broker; ``has`` says whether its kind keeps a promise of the list above."""

    server: Server

    def has(self, promise: str) -> bool:
        return self.server.name == "mosquitto" or promise not in RUMQTTD_LACKS

    def options(self, name: str = "bridge", **changes: object) -> Options:
        given = Options(self.server.url, name, username=GATEWAY, password=GATEWAY_PASSWORD)
        return msgspec.structs.replace(given, **changes)

    @property
    def port_v5(self) -> int:
        return int(self.server.url.rpartition(":")[2])


@pytest.fixture(params=["mosquitto", "iotcore_broker"])
def broker(request: pytest.FixtureRequest) -> Broker:
    start: Callable[[], Server] = request.getfixturevalue(request.param)
    return Broker(start())


class Bridge:
    """A client under test with everything it received."""

    def __init__(self, options: Options, *, acks: bool = False) -> None:
        self._acks = acks
        self.got: list[Message] = []
        self.batches: list[list[Message]] = []
        self.connects: list[bool] = []
        self.losses: list[GatewayError] = []
        self.client = MqttClient(
            options,
            (FILTER,),
            self._take,
            on_connected=self.connects.append,
            on_disconnected=self.losses.append,
        )

    def _take(self, messages: list[Message]) -> None:
        self.batches.append(messages)
        self.got += messages
        for message in messages if self._acks else ():
            self.client.ack(message)

    def payloads(self, start: int = 0) -> list[int]:
        return [int(message.payload) for message in self.got[start:]]

    async def __aenter__(self) -> "Bridge":
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.__aexit__(None, None, None)


@asynccontextmanager
async def publisher(broker: Broker) -> AsyncIterator[MqttClient]:
    async with MqttClient(broker.options("publisher"), (), lambda _: None) as client:
        yield client


async def send(client: MqttClient, numbers: Iterable[int]) -> None:
    await asyncio.gather(*(client.publish(TOPIC, str(n).encode()) for n in numbers))


def pubacks(sent: bytearray) -> list[int]:
    ids, view = [], memoryview(bytes(sent))
    while view:
        packet, size = mqtt5.read(view)
        view = view[size:]
        if isinstance(packet, mqtt5.PubAckPacket):
            ids.append(packet.packet_id)
    return ids


async def test_properties_arrive(broker: Broker) -> None:
    async with Bridge(broker.options()) as bridge, publisher(broker) as device:
        await device.publish(
            TOPIC,
            b"\x00\xff",
            content_type="application/cbor",
            response_topic="devices/pump-7/receipts",
            correlation_data=b"\x01\x02",
            user_properties=[("id", "a"), ("id", "b"), ("boot", "9")],
        )
        await eventually(lambda: bridge.got)
    message = bridge.got[0]
    assert (message.topic, message.payload, message.qos, message.retain, message.dup) == (
        TOPIC,
        b"\x00\xff",
        1,
        False,
        False,
    )
    assert (message.content_type, message.response_topic) == ("application/cbor", "devices/pump-7/receipts")
    assert message.correlation_data == b"\x01\x02"
    assert sorted(message.user_properties) == [("boot", "9"), ("id", "a"), ("id", "b")]
    assert (message.connection, message.arrival) == (1, 1)


async def test_what_was_not_acknowledged_comes_again_after_a_cut(broker: Broker) -> None:
    async with Relay(broker.port_v5) as relay, publisher(broker) as device:
        async with Bridge(broker.options(url=f"mqtt://127.0.0.1:{relay.port}")) as bridge:
            await send(device, range(4))
            await eventually(lambda: len(bridge.got) == 4)
            bridge.client.ack(bridge.got[0])
            await bridge.client.publish("try/mark", b"")  # its PUBACK says that the broker has read ours
            relay.cut()
            await eventually(lambda: len(bridge.got) == 7)
            again = bridge.got[4:]
            assert [int(message.payload) for message in again] == [1, 2, 3]
            assert [message.dup for message in again] == [broker.has("redelivery mark")] * 3
            same_ids = [m.packet_id for m in again] == [m.packet_id for m in bridge.got[1:4]]
            assert same_ids is broker.has("redelivery mark")
            assert {message.connection for message in again} == {2}

            for old in bridge.got[:4]:
                bridge.client.ack(old)  # of the first connection: their ids may mean other messages by now
            await eventually(lambda: bridge.client.connected)  # what was unacknowledged came before SUBACK
            await bridge.client.publish("try/mark", b"")
            assert pubacks(relay.sent[1]) == []
    assert isinstance(bridge.losses[0], Unavailable)


async def test_acknowledgements_leave_in_the_order_of_receipt(broker: Broker) -> None:
    async with Relay(broker.port_v5) as relay, publisher(broker) as device:
        async with Bridge(broker.options(url=f"mqtt://127.0.0.1:{relay.port}")) as bridge:
            await send(device, range(4))
            await eventually(lambda: len(bridge.got) == 4)
            first, second, third, fourth = bridge.got
            bridge.client.ack(third)
            await bridge.client.publish("try/mark", b"")
            assert pubacks(relay.sent[0]) == []
            bridge.client.ack(first)
            await bridge.client.publish("try/mark", b"")
            assert pubacks(relay.sent[0]) == [first.packet_id]
            bridge.client.ack(first)
            bridge.client.ack(second)
            bridge.client.ack(fourth)
            await bridge.client.publish("try/mark", b"")
            assert pubacks(relay.sent[0]) == [message.packet_id for message in bridge.got]


async def test_receive_maximum_stops_the_broker(broker: Broker) -> None:
    async with Bridge(broker.options(receive_maximum=5)) as bridge, publisher(broker) as device:
        await send(device, range(20))
        await eventually(lambda: len(bridge.got) >= 5)
        if broker.has("receive maximum"):
            await bridge.client.publish("try/mark", b"")  # comes behind whatever the broker had sent by now
            assert bridge.payloads() == [0, 1, 2, 3, 4]
        assert len(bridge.got) <= 6  # whatever the broker does
        done = 0
        while done < 20:
            await eventually(lambda: len(bridge.got) > done)  # noqa: B023 - asked before it changes
            bridge.client.ack(bridge.got[done])
            done += 1
        assert bridge.payloads() == list(range(20))


async def test_messages_wait_for_a_bridge_that_is_away(broker: Broker) -> None:
    async with Bridge(broker.options()) as bridge:
        pass
    async with publisher(broker) as device:
        await send(device, range(300))
    async with Bridge(broker.options(), acks=True) as bridge:
        await eventually(lambda: len(bridge.got) == 300)
    assert bridge.payloads() == list(range(300))
    assert bridge.connects == [True]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_new_messages_arrive_after_the_broker_came_back(broker: Broker, end: str) -> None:
    async with Bridge(broker.options()) as bridge:
        getattr(broker.server, end)()
        await eventually(lambda: not bridge.client.connected)
        with pytest.raises(Unavailable):
            bridge.client.publish("try/mark", b"")
        broker.server.start()
        await eventually(lambda: bridge.client.connected, within=60.0)
        async with publisher(broker) as device:
            await send(device, range(3))
        await eventually(lambda: len(bridge.got) == 3)
        assert bridge.connects == [False, end == "stop" and broker.has("persistence")]


async def test_retained_messages_come_once_and_are_marked(broker: Broker) -> None:
    async with Relay(broker.port_v5) as relay, publisher(broker) as device:
        await device.publish(TOPIC, b"1", retain=True)
        async with Bridge(broker.options(url=f"mqtt://127.0.0.1:{relay.port}")) as bridge:
            await eventually(lambda: bridge.got)
            bridge.client.ack(bridge.got[0])
            await device.publish(TOPIC, b"2", retain=True)  # MQTT-3.3.1-12: live, so not marked
            await eventually(lambda: len(bridge.got) == 2)
            bridge.client.ack(bridge.got[1])
            await bridge.client.publish("try/mark", b"")
            relay.cut()
            await eventually(lambda: len(bridge.connects) == 2)
            await send(device, [3])
            await eventually(lambda: bridge.payloads()[-1] == 3)
    assert [(int(m.payload), m.retain) for m in bridge.got] == [(1, True), (2, False), (3, False)]


async def test_a_retained_message_comes_again_to_a_new_session_marked(broker: Broker) -> None:
    async with publisher(broker) as device:
        await device.publish(TOPIC, b"1", retain=True)
        for name in ("first", "second"):
            async with Bridge(broker.options(name), acks=True) as bridge:
                await eventually(lambda bridge=bridge: bridge.got)
            assert [(int(m.payload), m.retain) for m in bridge.got] == [(1, True)]


async def test_overlapping_filters_bring_a_message_twice(broker: Broker) -> None:
    # The reason for `core.mapping.apart`: both come as new messages, with packet ids of their own.
    got: list[Message] = []
    filters = (FILTER, f"devices/{DEVICE}/+")
    async with MqttClient(broker.options(), filters, got.extend), publisher(broker) as device:
        await send(device, [1])
        await eventually(lambda: len(got) == 2)
    assert {(m.payload, m.dup) for m in got} == {(b"1", False)}
    assert len({m.packet_id for m in got}) == 2


async def test_a_device_of_mqtt_3_is_heard(broker: Broker) -> None:
    async with Bridge(broker.options()) as bridge:
        await asyncio.to_thread(
            publish_once,
            TOPIC,
            b"7",
            qos=1,
            hostname="127.0.0.1",
            port=broker.server.port,
            client_id=DEVICE,
            auth={"username": DEVICE, "password": DEVICE_PASSWORD},
            protocol=MQTTv311,
        )
        await eventually(lambda: bridge.payloads() == [7])
    assert (bridge.got[0].content_type, bridge.got[0].user_properties) == (None, [])


async def test_qos_0_needs_no_acknowledgement(broker: Broker) -> None:
    window = 1 if broker.has("lower qos") else 5
    async with Bridge(broker.options(receive_maximum=window)) as bridge, publisher(broker) as device:
        for n in range(5):
            await device.publish(TOPIC, str(n).encode(), qos=0)
        await eventually(lambda: len(bridge.got) == 5)
        for message in bridge.got:
            bridge.client.ack(message)
    if broker.has("lower qos"):
        assert {(message.qos, message.packet_id) for message in bridge.got} == {(0, 0)}
    else:
        assert {message.qos for message in bridge.got} == {1}


async def test_a_packet_above_the_brokers_maximum(broker: Broker) -> None:
    async with publisher(broker) as device:
        assert await device.publish("try/mark", b"x" * 64 * 1024) in (0, 0x10)
        if broker.has("maximum packet"):
            assert device.max_packet == limits.BROKER_PACKET_BYTES
            with pytest.raises(TooLarge, match="above the broker's"):
                device.publish(TOPIC, b"x" * limits.BROKER_PACKET_BYTES)
        else:
            with pytest.raises(Unavailable):
                await device.publish(TOPIC, b"x" * limits.BROKER_PACKET_BYTES)


async def test_a_wrong_password_says_what_to_do(broker: Broker) -> None:
    bridge = Bridge(broker.options(password="wrong"))
    running = asyncio.create_task(bridge.client.run(), name="bridge")
    await eventually(lambda: bridge.losses)
    assert "password" in str(bridge.losses[0])
    if broker.has("refusal"):
        with pytest.raises(Misconfigured, match="NOT_AUTHORIZED"):
            await running
    else:
        assert isinstance(bridge.losses[0], Unavailable)
    running.cancel()


async def test_nobody_subscribes(broker: Broker) -> None:
    async with publisher(broker) as device:
        code = await device.publish("devices/absent/commands/stop", b"{}")
    assert code == (0x10 if broker.has("no subscriber") else 0)


async def test_a_client_of_3_1_1_gets_what_has_properties(broker: Broker) -> None:
    lost: list[object] = []
    async with Bridge(broker.options()) as bridge, publisher(broker) as client:
        with device(broker.server, version=MQTTv311, name=GATEWAY, lost=lost) as old:
            await old.subscribe(TOPIC)
            await client.publish(TOPIC, b"1")
            await old.until(1)
            assert not lost
            await client.publish(TOPIC, b"2", user_properties=[("unit", "bar")])
            await client.publish(TOPIC, b"3")
            await eventually(lambda: bridge.payloads() == [1, 2, 3])
            if broker.has("properties for 3.1.1"):
                await old.until(3)
            else:
                await eventually(lambda: lost)
            got = [message.payload for message in old.got]
    assert got == ([b"1", b"2", b"3"] if broker.has("properties for 3.1.1") else [b"1"])


async def test_a_device_may_not_write_anothers_topic(broker: Broker) -> None:
    async with Bridge(broker.options()) as bridge:
        pump = broker.options(DEVICE, username=DEVICE, password=DEVICE_PASSWORD)
        async with MqttClient(pump, (), lambda _: None) as device:
            code = await device.publish("devices/other/telemetry", b"1")
            await device.publish(TOPIC, b"2")
        await eventually(lambda: 2 in bridge.payloads())
    assert code == (0x87 if broker.has("rights") else 0)
    assert bridge.payloads() == ([2] if broker.has("rights") else [1, 2])


async def test_a_thousand_publishes_at_once_are_all_acknowledged(broker: Broker) -> None:
    async with Bridge(broker.options(), acks=True) as bridge, publisher(broker) as device:
        await send(device, range(1000))
        await eventually(lambda: len(bridge.got) == 1000)
    assert bridge.payloads() == list(range(1000))


def test_uvloop_carries_it_too(broker: Broker) -> None:
    async def walk() -> None:
        async with Bridge(broker.options()) as bridge, publisher(broker) as device:
            await send(device, range(3))
            await eventually(lambda: len(bridge.got) == 3)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(walk())
