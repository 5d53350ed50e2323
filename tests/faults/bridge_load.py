"""Devices that count, what became of their readings, and what crossed the line between broker and bridge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import mqtt5

from gateway.adapters.child import Server
from gateway.adapters.log import Log
from gateway.adapters.mqtt import Message, MqttClient
from gateway.core.declared import Declared
from gateway.core.event import Draft, Event
from gateway.errors import GatewayError, Unavailable
from tests.bridges import COMMANDS, GROUP, options
from tests.faults.bridge_checker import Reading, Story
from tests.faults.proxy import Proxy
from tests.gateways import TOPICS, app_logs
from tests.servers import eventually

DEVICES = [f"d{n}" for n in range(10)]
#: What comes up and what goes down.
BOTH = (*TOPICS, COMMANDS)
#: No load of these tests is longer, whatever happens.
MOST = 2_000


class Load:
    """Ten devices, each counting its readings, through one connection. ``sent``: what the broker acknowledged."""

    def __init__(self, broker: Server, *, ids: bool = False) -> None:
        self.sent: list[tuple[str, int]] = []
        self._ids = ids
        self._seq = 0
        self._client = MqttClient(options(broker, client_id="load"), (), lambda _: None)
        self._pouring: asyncio.Task[None] | None = None
        self._stop = False

    async def __aenter__(self) -> Load:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.settle()
        await self._client.__aexit__(None, None, None)

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            seq, self._seq = self._seq, self._seq + 1
            await asyncio.gather(*(self._send(device, seq) for device in DEVICES))
            self.sent += [(device, seq) for device in DEVICES]

    def pour(self) -> None:
        self._stop = False
        self._pouring = asyncio.create_task(self._pour(), name="pouring")

    async def settle(self) -> None:
        """Send no more."""
        self._stop = True
        if self._pouring is not None:
            await self._pouring

    async def _pour(self) -> None:
        while not self._stop and self._seq < MOST:
            await self.rounds(1)
            await asyncio.sleep(0.01)  # a thousand readings a second

    async def _send(self, device: str, seq: int) -> None:
        properties = [("id", f"{device}-{seq}")] if self._ids else []
        while True:
            with suppress(Unavailable):
                await self._client.publish(
                    f"devices/{device}/telemetry", b'{"seq":%d}' % seq, user_properties=properties
                )
                return
            await asyncio.sleep(0.01)


class Commands:
    """Ten devices are sent commands that count, by way of the log. ``sent``: appended; ``got``: what devices received.

    The devices are one client that the broker keeps a session for, so what it misses is the broker's or the bridge's.
    """

    def __init__(self, broker: Server, log: Log) -> None:
        self.sent: list[tuple[str, int]] = []
        self.got: list[Reading] = []
        self._known: set[Reading] = set()
        self._log = log
        self._declared = Declared(BOTH)
        self._client = MqttClient(options(broker, client_id="devices"), (COMMANDS.filter,), self._take)
        self._seq = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False

    async def __aenter__(self) -> Commands:
        self._tasks.append(asyncio.create_task(self._log.run(), name="log of the commands"))
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.settle()
        await self._client.__aexit__(None, None, None)
        self._tasks[0].cancel()
        await asyncio.wait(self._tasks)

    async def begun(self) -> bool:
        """Whether the bridge has its cursors: what is appended before them is not sent."""
        groups = [await self._log.groups.names(name) for name in self._declared.partitions("devices")]
        return all(GROUP in names for names in groups)

    async def passed(self) -> bool:
        """Whether the cursors say that everything left."""
        states = [await self._log.groups.ask(name, GROUP) for name in self._declared.partitions("devices")]
        return all(state.cursor == state.top for state in states)

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            seq, self._seq = self._seq, self._seq + 1
            for device in DEVICES:
                found = self._declared.find(f"devices/{device}/commands/count")
                event = Event(f"devices/{device}/commands/count", b'{"seq":%d}' % seq, f"c-{device}-{seq}")
                (answer,) = await self._log.append(found.partition, [Draft(event, found.key)], patient=True)
                if isinstance(answer, GatewayError):
                    raise answer
                self.sent.append((device, seq))

    def pour(self) -> None:
        self._stop = False
        self._tasks.append(asyncio.create_task(self._pour(), name="commands"))

    async def settle(self) -> None:
        """Send no more."""
        self._stop = True
        if self._tasks[1:]:
            await asyncio.wait(self._tasks[1:])

    async def arrived(self, count: int) -> None:
        """Wait until devices have got so many more messages than now."""
        there = len(self.got)
        await eventually(lambda: len(self.got) >= there + count, within=60)

    async def story(self, *, returns: int, forgotten: Iterable[tuple[str, int]] = ()) -> Story:
        """What became of the commands, after a last round that has arrived."""
        await self.settle()
        await eventually(self._closing_round, within=60)
        return Story(self.sent, self.got, forgotten=forgotten, returns=returns)

    async def _closing_round(self) -> bool:
        """Send a round; did it arrive? A broker that was killed knows of no subscription until the devices are back."""
        await self.rounds(1)
        last = set(self.sent[-len(DEVICES) :])
        for _ in range(40):
            if last <= {(one.device, one.seq) for one in self.got}:
                return True
            await asyncio.sleep(0.05)
        return False

    async def _pour(self) -> None:
        while not self._stop and self._seq < MOST:
            await self.rounds(1)
            await asyncio.sleep(0.01)

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            one = _reading(message.topic, json.loads(message.payload), dict(message.user_properties)["gw-id"])
            # Sent again by the broker because our acknowledgement was lost: nothing that the bridge did.
            if not message.dup or one not in self._known:
                self.got.append(one)
                self._known.add(one)
            self._client.ack(message)


@asynccontextmanager
async def reading(log_url: str) -> AsyncIterator[Log]:
    log = await Log.open(log_url, app_logs(BOTH))
    try:
        yield log
    finally:
        await log.close()


async def stored(log: Log) -> list[Reading]:
    found = []
    for partition in Declared(TOPICS).partitions("devices"):
        for record in await log.recent_deliveries(partition, 10 * MOST):
            if not record.event.topic.endswith("/telemetry"):
                continue
            found.append(_reading(record.event.topic, json.loads(record.event.data), record.event.id))
    return found


def seen(pushes: Iterable[dict[str, Any]]) -> list[Reading]:
    """A watcher's readings: one whose id it knows it drops."""
    pubs = {push["pub"]["tags"]["id"]: push["pub"] for push in reversed(list(pushes))}
    return [_reading(pub["tags"]["topic"], pub["data"], id) for id, pub in reversed(pubs.items())]


def _reading(topic: str, data: Any, id: str) -> Reading:
    return Reading(topic.split("/")[1], data["seq"], id)


async def arrived(log: Log, want: Callable[[set[tuple[str, int]]], bool]) -> list[Reading]:
    """Wait until ``want`` holds of what is in the log, and return it."""

    found: list[Reading] = []

    async def there() -> bool:
        found[:] = await stored(log)
        return want({(one.device, one.seq) for one in found})

    await eventually(there, within=60)
    return found


async def story(log: Log, load: Load, *, watched: Sequence[dict[str, Any]] | None = None) -> Story:
    """What became of ``load``, after a last round of which every device's reading has arrived."""
    await load.settle()
    await eventually(lambda: _closing_round(log, load), within=60)
    last = set(load.sent[-len(DEVICES) :])
    if watched is not None:
        await eventually(lambda: last <= {(one.device, one.seq) for one in seen(watched)}, within=30)
    return Story(load.sent, await stored(log), seen(watched or ()))


async def _closing_round(log: Log, load: Load) -> bool:
    """Send a round; did it arrive? A broker that was killed knows of no subscription until the bridge is back."""
    await load.rounds(1)
    last = set(load.sent[-len(DEVICES) :])
    for _ in range(40):
        if last <= {(one.device, one.seq) for one in await stored(log)}:
            return True
        await asyncio.sleep(0.05)
    return False


class Wiretap(Proxy):
    """A proxy that keeps what passed, by connection: the broker's words and the bridge's."""

    def __init__(self, to: str) -> None:
        super().__init__(to)
        self._words: dict[asyncio.StreamWriter, bytearray] = {}
        self.said: list[tuple[bytearray, bytearray]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = bytearray(), bytearray()
        self.said.append((there, back))
        await super().serve(_Kept(reader, there), _KeptWriter(writer, back))  # type: ignore[arg-type]  # what it uses

    def acknowledged(self) -> set[tuple[str, int]]:
        """The readings whose PUBACK left the bridge."""
        found: set[tuple[str, int]] = set()
        for there, back in self.said:
            found |= _answered(back, there)
        return found

    def taken(self) -> set[tuple[str, int]]:
        """The commands that the broker acknowledged to the bridge."""
        return set[tuple[str, int]]().union(*(_answered(there, back) for there, back in self.said))


def _answered(publishes: bytearray, answers: bytearray) -> set[tuple[str, int]]:
    published = {
        p.packet_id: (p.topic.split("/")[1], json.loads(p.payload)["seq"])
        for p in packets(publishes)
        if isinstance(p, mqtt5.PublishPacket)
    }
    return {published[p.packet_id] for p in packets(answers) if isinstance(p, mqtt5.PubAckPacket)}


class _Kept:
    def __init__(self, reader: asyncio.StreamReader, to: bytearray) -> None:
        self._reader, self._to = reader, to

    async def read(self, most: int) -> bytes:
        data = await self._reader.read(most)
        self._to += data
        return data


class _KeptWriter:
    def __init__(self, writer: asyncio.StreamWriter, to: bytearray) -> None:
        self._writer, self._to = writer, to
        self.transport, self.drain = writer.transport, writer.drain

    def write(self, data: bytes) -> None:
        self._to += data
        self._writer.write(data)


def packets(data: bytearray) -> Iterable[mqtt5.Packet]:
    view = memoryview(bytes(data))
    while view:
        try:
            packet, size = mqtt5.read(view)
        except IndexError:
            return  # cut in the middle
        view = view[size:]
        yield packet


@asynccontextmanager
async def between(broker: Server) -> AsyncIterator[Wiretap]:
    """A wiretap in front of ``broker``."""
    it = Wiretap(broker.url)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    it.url = f"mqtt://127.0.0.1:{it.port}"
    try:
        yield it
    finally:
        server.close()
        await it.finish()
        await server.wait_closed()
