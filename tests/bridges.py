"""Bridges for tests: a real one in the test's own loop, devices on paho-mqtt, and what the log holds in the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import mqtt5
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.adapters.child import Server
from gateway.adapters.log import AppLog, DeadLetter, Log
from gateway.adapters.mqtt import Options
from gateway.bridge import Bridge
from gateway.core.declared import Declared, Topic
from gateway.core.event import Partition, Record
from gateway.core.ingest import Decode
from gateway.core.mapping import TopicMap
from tests.gateways import TOPICS, app_logs
from tests.servers import DEVICE, GATEWAY, GATEWAY_PASSWORD, USERS, Relay, eventually

#: What goes down to devices, beside what comes up from them.
COMMANDS = Topic(
    pattern="devices/{device}/commands/{name}",
    key="{device}",
    kind="command",
    write=("operator",),
    read=("device:{device}", "operator"),
    mqtt="out",
)
#: The cursors of a bridge with the client id of `options`.
GROUP = "bridge.bridge"
TELEMETRY = f"devices/{DEVICE}/telemetry"
STATUS = f"devices/{DEVICE}/status"


def options(broker: Server, **changes: Any) -> Options:
    given = {"url": broker.url, "client_id": "bridge", "username": GATEWAY, "password": GATEWAY_PASSWORD}
    return Options(**{**given, **changes})


@asynccontextmanager
async def running_bridge(
    log_url: str,
    to: Options,
    topics: Sequence[Topic] = TOPICS,
    *,
    topic_map: TopicMap | None = None,
    decoders: Mapping[str, Decode] | None = None,
    wait: bool = True,
    logs: Sequence[AppLog] = (),
    **parts: Any,
) -> AsyncIterator[Bridge]:
    """A bridge that is subscribed, or stands by; stopped as SIGTERM would when left. ``parts``: see `Bridge`."""
    log = await Log.open(log_url, logs or app_logs(topics))
    bridge = Bridge(log, Declared(topics), to, topic_map=topic_map, decoders=decoders, **parts)
    stop = asyncio.Event()
    running = asyncio.create_task(bridge.run(stop), name="bridge")
    try:
        await eventually(lambda: not wait or running.done() or not bridge.unready(), within=30)
        if running.done():
            running.result()
        yield bridge
    finally:
        stop.set()
        await running
        await log.close()


@contextmanager
def device(
    broker: Server,
    *,
    version: MQTTProtocolVersion = MQTTv5,
    name: str = DEVICE,
    stays: bool = False,
    lost: list[object] | None = None,
) -> Iterator[Device]:
    """A device on the broker: MQTT 5, or 3.1.1 on the port that speaks it. ``stays``: the broker keeps its session.

    ``lost`` is told of each connection that ends.
    """
    port = broker.port if version == MQTTv311 else int(broker.url.rpartition(":")[2])
    kept: dict[str, Any] = {}
    if stays and version == MQTTv5:
        expiry = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has stubs for some of it
        expiry.SessionExpiryInterval = 3600
        kept = {"clean_start": False, "properties": expiry}
    clean = None if version == MQTTv5 else not stays
    paho = Paho(CallbackAPIVersion.VERSION2, client_id=name, protocol=version, clean_session=clean)
    paho.username_pw_set(name, USERS[name])
    there, one = threading.Event(), Device(paho)
    paho.on_connect = lambda *_: there.set()
    if lost is not None:
        paho.on_disconnect = lambda *_: lost.append(_)
    paho.connect("127.0.0.1", port, **kept)
    paho.loop_start()
    try:
        assert there.wait(20)
        yield one
    finally:
        paho.disconnect()
        paho.loop_stop()


class Device:
    """Publishes, and waits for the broker's PUBACK where it asks for one; ``got`` is what it received, in order."""

    def __init__(self, paho: Paho) -> None:
        self._paho = paho
        self.got: list[MQTTMessage] = []
        self._granted = threading.Event()
        paho.on_message = lambda _, __, message: self.got.append(message)
        paho.on_subscribe = lambda *_: self._granted.set()

    async def subscribe(self, filter: str) -> None:
        """Subscribe at QoS 1, and wait for SUBACK."""
        self._granted.clear()
        self._paho.subscribe(filter, 1)
        assert await asyncio.to_thread(self._granted.wait, 20)

    async def until(self, count: int) -> list[MQTTMessage]:
        """Wait for so many messages and return all."""
        await eventually(lambda: len(self.got) >= count, within=60)
        return self.got

    def send(self, topic: str, *payloads: bytes, qos: int = 1, retain: bool = False, **properties: Any) -> None:
        """``properties`` by their names in paho, such as ``ContentType`` and ``UserProperty``."""
        given: Properties | None = None
        if properties:
            given = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has stubs for some of it
            for key, value in properties.items():
                setattr(given, key, value)
        sent = [self._paho.publish(topic, payload, qos, retain, given) for payload in payloads]
        for one in sent:
            one.wait_for_publish(20)
            assert one.is_published()

    async def publish(self, topic: str, *payloads: bytes, **how: Any) -> None:
        await asyncio.to_thread(self.send, topic, *payloads, **how)


def partition(topic: str, topics: Sequence[Topic] = TOPICS) -> Partition:
    return Declared(topics).find(topic).partition


async def stored(log: Log, topic: str = TELEMETRY, topics: Sequence[Topic] = TOPICS) -> list[Record]:
    """The events of ``topic`` that are in the log, oldest first; the newest 10,000 of its partition."""
    return [r for r in await log.recent_deliveries(partition(topic, topics), 10_000) if r.event.topic == topic]


async def buried(log: Log, where: Partition) -> list[DeadLetter]:
    return [letter for _, letter in await log.dead(where, count=1_000)]


def through(relay: Relay) -> dict[str, str]:
    return {"url": f"mqtt://127.0.0.1:{relay.port}"}


def pubacks(sent: bytearray) -> int:
    """How many PUBACKs are among the bytes that a client sent."""
    count, view = 0, memoryview(bytes(sent))
    while view:
        packet, size = mqtt5.read(view)
        view = view[size:]
        count += isinstance(packet, mqtt5.PubAckPacket)
    return count


async def until(log: Log, count: int, topic: str = TELEMETRY, topics: Any = TOPICS) -> list[Record]:
    """Wait until so many events of ``topic`` are in the log, and return them."""

    async def enough() -> bool:
        return len(await stored(log, topic, topics)) >= count

    await eventually(enough, within=60)
    return await stored(log, topic, topics)


async def until_buried(log: Log, count: int, where: str) -> list[Any]:
    async def enough() -> bool:
        return len(await buried(log, where)) >= count

    await eventually(enough, within=30)
    return await buried(log, where)


def value(bridge: Bridge, name: str, **labels: str) -> float:
    return bridge.metrics.registry.get_sample_value(name, labels) or 0.0
