"""One partition's way out: its events published in order, and a cursor that follows the broker's PUBACKs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from gateway import limits
from gateway.adapters.log import REPLAYS, DeadLetter, Lease, Log, Parked
from gateway.adapters.metrics import BridgeMetrics
from gateway.adapters.mqtt import MqttClient
from gateway.bridge.sent import Sent, outgoing
from gateway.bridge.term import Term
from gateway.core.declared import Declared, Topic
from gateway.core.event import Event, Partition, Record
from gateway.core.lanes import Changes
from gateway.errors import BadTopic, Busy, Fenced, GatewayError, NotDeclared, TooLarge, Unavailable

_logger = logging.getLogger("gateway.bridge")

#: PUBACK without a subscriber, and the first reason code that is a refusal (MQTT 5, 3.4.2.1).
_UNHEARD, _REFUSED = 0x10, 0x80
#: Unspecified, implementation specific, quota exceeded: the same message may be taken later.
_AGAIN = (0x80, 0x83, 0x97)
_NOT_AUTHORIZED = 0x87


class Flight:
    """One event on its way: read, published, answered. ``number`` is its offset, or the number of a replay."""

    __slots__ = ("answer", "number", "record", "refusal")

    def __init__(self, number: int, record: Record) -> None:
        self.number = number
        self.record = record
        #: The broker's reason code; None until it was published on a connection that lives.
        self.answer: asyncio.Future[int] | None = None
        #: Why no broker, or not this one, will ever take it.
        self.refusal: GatewayError | None = None

    @property
    def unanswered(self) -> bool:
        """Whether it is to be sent again as soon as there is another connection."""
        if self.refusal is not None or self.answer is None:
            return self.refusal is None
        if not self.answer.done():
            return False
        return self.answer.cancelled() or self.answer.exception() is not None or self.answer.result() in _AGAIN

    @property
    def landed(self) -> bool:
        """Whether nothing more will become of it."""
        return self.refusal is not None or (self.answer is not None and self.answer.done() and not self.unanswered)


class Course(msgspec.Struct, frozen=True):
    """What all partitions' ways out of one term share."""

    log: Log
    declared: Declared
    client: MqttClient
    term: Term
    metrics: BridgeMetrics
    sent: Sent
    #: The cursors' name, see `gateway groups`; and this process's.
    group: str
    worker: str


class Outbound:
    """Runs until told to `leave`, or cancelled. At most `limits.MQTT_OUT_WINDOW` events are out at a time.

    A connection that ends takes the answers with it: all that was not answered is published again, in order, before
    anything newer. So a subscriber may see events twice (with one ``gw-id``), and sees each the first time in order.
    """

    def __init__(self, course: Course, partition: Partition) -> None:
        self.partition = partition
        #: Whether the cursor is there: what is appended from now on leaves.
        self.begun = False
        self._by = course
        self._leaving = False
        self._loop = asyncio.get_running_loop()
        self._begin()

    def _begin(self) -> None:
        """Forget what an earlier lease had in hand: the cursor says where to read on."""
        #: In order: what is not finished, and of that what is to be published next.
        self._flights: deque[Flight] = deque()
        self._unsent: deque[Flight] = deque()
        self._replays: deque[Parked] = deque()
        self._letters: list[DeadLetter] = []
        self._released: list[int] = []
        #: The last offset that was read and given a flight where it needs one.
        self._passed = 0
        #: The connection that `_flights` were published on.
        self._connection = 0
        self._not_before = 0.0
        self._resting = False
        self._wake, self._more, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Hold the partition's lease whenever it can be had, and send."""
        while not self._leaving:
            lease = await self._lease()
            if lease is None:
                await asyncio.sleep(limits.BRIDGE_TRY)
                continue
            self._begin()
            try:
                await self._hold(lease)
            except* Fenced as lost:
                _logger.warning("%s", lost.exceptions[0])

    def leave(self) -> None:
        """Publish nothing more; end when what is out is answered."""
        self._leaving = True
        self._wake.set()

    async def _lease(self) -> Lease | None:
        await self._by.term.confirmed()
        try:
            # From now on: who declares a topic mqtt = "out" does not ask for yesterday's commands.
            lease = await self._by.log.groups.take(
                self.partition, self._by.group, self._by.worker, "latest", self._by.term.lease.ttl
            )
        except Unavailable:
            return None
        self.begun = True
        return lease

    async def _hold(self, lease: Lease) -> None:
        self._passed = lease.cursor
        self._replays.extend(lease.parked)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(lease), name=f"read {self.partition} for MQTT")
            sending = group.create_task(self._send(), name=f"publish {self.partition}")
            await self._keep(lease)
            reading.cancel()
            sending.cancel()
        with suppress(Unavailable):  # it expires
            await lease.release()

    # --- reading ---

    async def _read(self, lease: Lease) -> None:
        tail = self._by.log.tail(self.partition)
        try:
            while True:
                try:
                    await tail.start_at(lease.cursor)
                    break
                except Unavailable:
                    await asyncio.sleep(limits.LOG_BACKOFF[1])
            async for batch in tail:
                if batch.lost:
                    # Trimming made dead letters of them.
                    _logger.warning("%s: events after %d were gone before they left", self.partition, self._passed)
                for record in batch.records:
                    if self._wanted(record.event):
                        while len(self._flights) >= limits.MQTT_OUT_WINDOW:
                            self._room.clear()
                            await self._room.wait()
                        self._add(Flight(record.offset, record))
                    self._passed = record.offset
                self._passed = tail.position.offset
        finally:
            await tail.close()

    def _wanted(self, event: Event) -> bool:
        # What came from a broker does not go to one: it would come back for ever.
        return event.meta.via != "mqtt" and self._topic(event) is not None

    def _topic(self, event: Event) -> Topic | None:
        try:
            topic = self._by.declared.find(event.topic).topic
        except (NotDeclared, BadTopic):  # declared when it was appended
            return None
        return topic if topic.mqtt == "out" else None

    def _add(self, flight: Flight) -> None:
        self._flights.append(flight)
        self._unsent.append(flight)
        self._more.set()

    # --- publishing ---

    async def _send(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            await asyncio.sleep(max(0.0, self._not_before - self._loop.time()))
            await self._by.client.ready()
            await self._by.term.confirmed()
            if self._by.client.number != self._connection:
                self._connection = self._by.client.number
                self._unsent = deque(flight for flight in self._flights if flight.unanswered)
            while self._unsent and not (self._resting or self._leaving):
                if not self._by.term.fresh or self._by.client.number != self._connection:
                    self._more.set()
                    break
                flight = self._unsent[0]
                try:
                    self._publish(flight)
                except Busy:
                    self._more.set()
                    self._not_before = self._loop.time() + limits.MQTT_OUT_BUSY
                    break
                except Unavailable:
                    self._more.set()
                    break
                except (BadTopic, TooLarge) as error:
                    flight.refusal = error
                    self._wake.set()
                self._unsent.popleft()

    def _publish(self, flight: Flight) -> None:
        event = flight.record.event
        topic, how = self._topic(event), outgoing(event)
        flight.answer = self._by.client.publish(
            event.topic,
            event.data,
            retain=topic is not None and topic.retain,
            content_type=how.content_type,
            response_topic=how.response_topic,
            correlation_data=how.correlation,
            user_properties=how.properties,
        )
        self._by.sent.remember(event)
        flight.answer.add_done_callback(self._answered)

    def _answered(self, answer: asyncio.Future[int]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._more.set()
        self._wake.set()

    # --- remembering: the one task that speaks with the lease ---

    async def _keep(self, lease: Lease) -> None:
        told = self._loop.time()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, told + limits.BRIDGE_BEAT - self._loop.time())):
                    await self._wake.wait()
            self._wake.clear()
            landed = self._land(lease)
            now = self._loop.time()
            if landed or now - told >= limits.BRIDGE_BEAT:
                told = now
                await self._tell(lease)
                await self._replay(lease)
            self._resting = lease.paused
            if (self._leaving or self._resting) and not any(
                flight.answer is not None and not flight.answer.done() for flight in self._flights
            ):
                self._land(lease)
                await self._tell(lease)
                return

    def _land(self, lease: Lease) -> bool:
        """Take what is finished off the front of what is out; never what stands behind something unfinished."""
        oldest, count = 0, 0
        while self._flights and self._flights[0].landed:
            flight = self._flights.popleft()
            self._finish(flight, lease)
            if flight.number >= REPLAYS:
                self._released.append(flight.number)
            oldest, count = oldest or flight.record.event.meta.ts, count + 1
        if self._flights and self._flights[0].unanswered and self._flights[0].answer is not None:
            self._again(self._flights[0])
        if count:
            self._room.set()
            if oldest:
                self._by.metrics.out.observe(max(0.0, time.time() - oldest / 1000))
        return count > 0

    def _again(self, flight: Flight) -> None:
        """The broker's answer to the first one was: later. All of them go again, from that one on."""
        if flight.answer is not None and flight.answer.done() and flight.answer.exception() is None:
            flight.answer = None
            self._connection = 0
            self._not_before = self._loop.time() + limits.MQTT_OUT_AGAIN
        self._more.set()

    def _finish(self, flight: Flight, lease: Lease) -> None:
        code = 0 if flight.answer is None or flight.refusal is not None else flight.answer.result()
        reason, error = "", ""
        if flight.refusal is not None:
            reason, error = flight.refusal.code, str(flight.refusal)
        elif code >= _REFUSED:
            remedy = "; let the gateway's account write it" if code == _NOT_AUTHORIZED else ""
            reason, error = "refused_by_broker", f"the broker answered PUBACK 0x{code:02x}{remedy}"
        if not reason:
            self._by.metrics.published.inc()
            self._by.metrics.published_bytes.inc(len(flight.record.event.data))
            self._by.metrics.unheard.inc(code == _UNHEARD)
            return
        self._by.metrics.buried.labels(reason).inc()
        self._letters.append(self._letter(flight.record, reason, error, lease))

    def _letter(self, record: Record, reason: str, error: str, lease: Lease) -> DeadLetter:
        event = record.event
        try:
            key = self._by.declared.find(event.topic).key
        except NotDeclared:  # it was, when it left
            key = event.topic
        return DeadLetter(
            reason,
            error,
            event.topic,
            event.data,
            event.meta,
            event.meta.producer,
            time.time_ns() // 1_000_000,
            group=lease.group,
            attempts=1,
            worker=self._by.worker,
            id=event.id,
            at=f"{record.epoch}-{record.offset}",
            key="" if key == event.topic else key,
        )

    @property
    def _cursor(self) -> int:
        first = next((flight.number for flight in self._flights if flight.number < REPLAYS), self._passed + 1)
        return first - 1

    async def _tell(self, lease: Lease) -> None:
        """Move the cursor, with the letters and the replays that are done; or only say that we live."""
        cursor = self._cursor
        if cursor == lease.cursor and not self._letters and not self._released:
            with suppress(Unavailable):
                await lease.renew()
            return
        letters, self._letters = self._letters, []
        released, self._released = self._released, []
        await lease.settle(Changes(cursor, cursor + 1, [], released, [], []), cursor, letters)

    async def _replay(self, lease: Lease) -> None:
        """Give dead letters that came back to this group their flights, as far as there is room."""
        with suppress(Unavailable):  # asked again with the next beat
            if lease.replays:
                self._replays.extend(await lease.fresh())
            room = limits.MQTT_OUT_WINDOW - len(self._flights)
            items: Sequence[Parked] = [self._replays[n] for n in range(min(room, len(self._replays)))]
            if not items:
                return
            records = await lease.fetch(items)
            for item in items:
                self._replays.popleft()
                record = records.get(item.offset)
                if record is not None and self._topic(record.event) is not None:
                    self._add(Flight(item.offset, record))
                else:  # trimmed: then it is among the dead letters; or no topic that leaves, any more
                    self._released.append(item.offset)
