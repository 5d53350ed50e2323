"""The bridge process: MQTT into the log, each message acknowledged to the broker only after its append."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from gateway import limits
from gateway.adapters.identity import new_id
from gateway.adapters.log import DeadLetter, Log
from gateway.adapters.metrics import BridgeMetrics
from gateway.adapters.mqtt import Message, MqttClient, Options
from gateway.core.declared import Declared
from gateway.core.event import Meta, Partition
from gateway.core.ingest import Accepted, Arrived, Decode, Deliveries, Ingest, Rejected, Sample, mark
from gateway.core.mapping import TopicMap, apart
from gateway.errors import GatewayError, Unavailable

_logger = logging.getLogger("gateway.bridge")

_T = TypeVar("_T")

#: What one message became, with the message to acknowledge once it is stored; None: an event that is in the log, or
#: waits before this one.
_Judged = tuple[Message, Accepted | DeadLetter | None]


class Bridge:
    """Reads one broker. Only one bridge may use a client id at a time: the broker disconnects the other."""

    def __init__(
        self,
        log: Log,
        declared: Declared,
        options: Options,
        *,
        topic_map: TopicMap | None = None,
        decoders: Mapping[str, Decode] | None = None,
        gateway: str = "gateway",
    ) -> None:
        self.log = log
        self.metrics = BridgeMetrics()
        self._declared = declared
        self._map = topic_map or TopicMap([])
        self._ingest = Ingest(declared, decoders or {}, options.client_id)
        #: Twice what may be unacknowledged: what is recalled by the clock may be out of order a little.
        self._deliveries = Deliveries(2 * options.receive_maximum)
        self._sample = Sample()
        #: Messages that no application's topic claims are buried here.
        self._stray_partition: Partition = f"{gateway}.0"
        self._waiting: dict[Partition, list[_Judged]] = {}
        self._pumps: dict[Partition, asyncio.Task[None]] = {}
        #: QoS 0 messages between the broker and the log.
        self._unheld = 0
        self._options = options
        self._down: str = "not connected to the broker yet"
        self._client: MqttClient | None = None
        self._stopping = False
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    @property
    def filters(self) -> tuple[str, ...]:
        """What it subscribes to: the upward topics by name, no two of which a message passes."""
        return apart([*(t.filter for t in self._declared if t.mqtt == "in"), *self._map.filters()])

    async def run(self, stop: asyncio.Event) -> None:
        """Carry messages until ``stop`` is set.

        Start: the log, then the memory of recent deliveries, then the broker. End: what is under way is appended and
        acknowledged, at most `limits.DRAIN_WITHIN` long; then the broker, then the log. What did not make it comes
        again from the broker. Raises what no waiting mends, in a group: :class:`Misconfigured` for refused
        credentials, rights and a client id that another bridge uses.
        """
        async with asyncio.TaskGroup() as group:
            log = group.create_task(self.log.run(), name="log")
            await self._recall(stop)
            client = self._client = MqttClient(
                self._options,
                self.filters,
                self._take,
                on_new_session=self._deliveries.forget,
                on_connected=self._connected,
                on_disconnected=self._disconnected,
            )
            reading = group.create_task(client.run(), name="mqtt")
            try:
                await self._until(stop)
                await self._drain()
            finally:
                self._stopping = True
                pumps = list(self._pumps.values())
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
            reading.cancel()
            await asyncio.wait([reading])
            log.cancel()

    async def _until(self, stop: asyncio.Event) -> None:
        """Return when asked to stop; raise what a pump failed with."""
        either = [
            asyncio.create_task(stop.wait(), name="asked-to-stop"),
            asyncio.create_task(self._failed.wait(), name="pump-failed"),
        ]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in either:
                task.cancel()
        if self._failure is not None:
            raise self._failure

    async def _drain(self) -> None:
        """Take nothing new, and see what is under way through."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.DRAIN_WITHIN):
                while self._pumps:
                    await asyncio.wait(self._pumps.values())

    async def _recall(self, stop: asyncio.Event) -> None:
        """Read which deliveries were appended last: we may have died before the broker saw them acknowledged."""
        owners = sorted({topic.owner for topic in self._declared if topic.mqtt == "in"})
        found: list[tuple[int, tuple[int, int]]] = []
        for partition in [name for owner in owners for name in self._declared.partitions(owner)]:
            read = functools.partial(self.log.recent_deliveries, partition, 2 * self._options.receive_maximum)
            for record in await self._patiently(read, stop) or ():
                event = record.event
                if event.meta.delivery is not None and event.meta.delivery[0] == self._options.client_id:
                    found.append((event.meta.ts, mark(event.meta.delivery[1], event.topic, event.data)))
        # Of all partitions together, oldest first: in a quiet one the newest may be so old that its packet id has
        # been used again since.
        for _, delivery in sorted(found, key=lambda one: one[0]):
            self._deliveries.remember(delivery)

    def _connected(self, session_present: bool) -> None:
        self._down = ""
        known = "a session it kept" if session_present else "a new session"
        _logger.info("subscribed at the broker, in %s, to %s", known, ", ".join(self.filters))

    def _disconnected(self, error: GatewayError) -> None:
        self._down = str(error)
        self.metrics.reconnects.inc()
        _logger.warning("broker: %s", error)

    def unready(self) -> list[str]:
        """Return why nothing is carried now; nothing when all is well."""
        return ([f"broker: {self._down}"] if self._down else []) + self.log.unready()

    # --- messages ---

    def _take(self, messages: list[Message]) -> None:
        """Judge one wake-up's worth of messages and hand them to their partitions, in order of arrival."""
        if self._stopping:
            return  # not acknowledged: it comes again
        self.metrics.received.inc(len(messages))
        now = time.time()
        for message in messages:
            if not message.packet_id and self._unheld >= limits.MQTT_QOS0_WAITING:
                self.metrics.rejected.labels("qos0_overflow").inc()
                continue
            judged = self._judge(message, now)
            if judged is None:  # a stray too many
                self._acknowledge(message)
                continue
            if not message.packet_id:
                self._unheld += 1
            partition, what = judged
            waiting = self._waiting.get(partition)
            if waiting is None:
                self._waiting[partition] = [(message, what)]
                if partition not in self._pumps:
                    self._start_pump(partition)
            else:
                waiting.append((message, what))

    def _judge(self, message: Message, now: float) -> tuple[Partition, Accepted | DeadLetter | None] | None:
        topic = message.topic
        if self._map.rules:
            topic = self._map.resolve(topic) or topic
        arrived = Arrived(
            topic,
            message.payload,
            message.packet_id,
            message.retain,
            message.content_type or "",
            message.user_properties,
            message.response_topic or "",
            message.correlation_data or b"",
        )
        ts = int(now * 1000)
        judged = self._ingest.judge(arrived, new_id(), ts)
        if message.dup:
            self.metrics.redelivered.inc()
        if isinstance(judged, Accepted):
            if message.packet_id:
                event = judged.draft.event
                delivery = mark(message.packet_id, event.topic, event.data)
                if message.dup and delivery in self._deliveries:
                    return judged.partition, None
                self._deliveries.remember(delivery)
            return judged.partition, judged
        self.metrics.rejected.labels(judged.reason).inc()
        if not judged.partition and not self._sample.keep(message.topic, now):
            return None
        return judged.partition or self._stray_partition, _letter(judged, message, ts)

    async def _pump(self, partition: Partition) -> None:
        """Append what waits for ``partition``; whatever arrives meanwhile is the next batch."""
        while batch := self._waiting.pop(partition, None):
            letters = [what for _, what in batch if isinstance(what, DeadLetter)]
            kept = [(message, what) for message, what in batch if isinstance(what, Accepted) and not what.ephemeral]
            if kept:
                answers = await self.log.append(partition, [what.draft for _, what in kept], patient=True)
                for (message, _), answer in zip(kept, answers, strict=True):
                    if isinstance(answer, Unavailable):
                        raise answer  # not acknowledged, so it comes again
                    if isinstance(answer, GatewayError):
                        rejected = Rejected(answer.code, str(answer), partition)
                        self.metrics.rejected.labels(answer.code).inc()
                        letters.append(_letter(rejected, message, int(time.time() * 1000)))
            if letters:
                await self._patiently(functools.partial(self.log.bury_many, partition, letters))
            for _, what in batch:
                if isinstance(what, Accepted) and what.ephemeral:
                    await self._patiently(functools.partial(self.log.publish_live, partition, what.draft.event))
            # Only now is it ours. Acknowledging earlier would lose what a crash here takes with it: the broker
            # forgets what it sees acknowledged.
            for message, _ in batch:
                self._acknowledge(message)
            self._unheld -= sum(not message.packet_id for message, _ in batch)
            self.metrics.appended.inc(len(kept))
            if kept:
                self.metrics.latency.observe(max(0.0, time.time() - kept[0][1].draft.event.meta.ts / 1000))

    async def _patiently(self, ask: Callable[[], Awaitable[_T]], stop: asyncio.Event | None = None) -> _T | None:
        """Ask the log until it answers, or until ``stop``."""
        while stop is None or not stop.is_set():
            try:
                return await ask()
            except Unavailable as e:
                _logger.warning("waiting for the log: %s", e)
                await asyncio.sleep(limits.LOG_BACKOFF[1])
        return None

    def _start_pump(self, partition: Partition) -> None:
        pump = asyncio.create_task(self._pump(partition), name=f"append-{partition}")
        self._pumps[partition] = pump
        pump.add_done_callback(functools.partial(self._pump_done, partition))

    def _pump_done(self, partition: Partition, task: asyncio.Task[None]) -> None:
        self._pumps.pop(partition, None)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            # What it held is not acknowledged. Going down brings it back, in order; going on would leave a hole.
            self._failure = self._failure or error
            self._failed.set()
        elif partition in self._waiting:
            self._start_pump(partition)

    def _acknowledge(self, message: Message) -> None:
        if self._client is not None:
            self._client.ack(message)


def _letter(rejected: Rejected, message: Message, ts: int) -> DeadLetter:
    """Return the message as it came, under the topic it came by, with the reason."""
    properties = dict(message.user_properties)
    return DeadLetter(
        reason=rejected.reason,
        error=rejected.error,
        topic=message.topic,
        data=message.payload,
        meta=Meta(ts=ts, type=message.content_type or "", via="mqtt", headers=properties),
        producer="mqtt",
        ts=ts,
        id=properties.get("id", ""),
    )
