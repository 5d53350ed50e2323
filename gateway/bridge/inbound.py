"""MQTT into the log: each message acknowledged to the broker only after its append."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from gateway import limits
from gateway.adapters.identity import new_id
from gateway.adapters.log import DeadLetter, Log
from gateway.adapters.metrics import BridgeMetrics
from gateway.adapters.mqtt import Message
from gateway.bridge.sent import Sent
from gateway.bridge.term import Term
from gateway.core.declared import Declared
from gateway.core.event import Meta, Partition
from gateway.core.ingest import Accepted, Arrived, Deliveries, Ingest, Rejected, Sample, mark
from gateway.core.mapping import TopicMap
from gateway.errors import Fenced, GatewayError, Unavailable

_logger = logging.getLogger("gateway.bridge")

_T = TypeVar("_T")

#: What one message became, with the message to acknowledge once it is stored; None: an event that is in the log, or
#: waits before this one, or none at all.
Judged = tuple[Message, Accepted | DeadLetter | None]


class Judge(msgspec.Struct, frozen=True):
    """What the messages of one broker are judged by, whoever serves it when."""

    declared: Declared
    topic_map: TopicMap
    ingest: Ingest
    #: Whose deliveries are recalled, and how many may be unacknowledged.
    session: str
    receive_maximum: int
    #: Messages that no application's topic claims are buried here.
    stray_partition: Partition
    sample: Sample
    sent: Sent


class Inbound:
    """One term's messages, from the broker to the log. `recall` first; `close` it."""

    def __init__(
        self,
        log: Log,
        judge: Judge,
        term: Term,
        metrics: BridgeMetrics,
        acknowledge: Callable[[Message], None],
    ) -> None:
        self.log = log
        self.metrics = metrics
        self._by = judge
        self._term = term
        self._acknowledge = acknowledge
        #: Twice what may be unacknowledged: what is recalled by the clock may be out of order a little.
        self.deliveries = Deliveries(2 * judge.receive_maximum)
        self.waiting: dict[Partition, list[Judged]] = {}
        self._pumps: dict[Partition, asyncio.Task[None]] = {}
        #: QoS 0 messages between the broker and the log.
        self._unheld = 0
        self._stopping = False
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    async def until(self, stop: asyncio.Event) -> None:
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

    async def drain(self) -> None:
        """Take nothing new, and see what is under way through."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.DRAIN_WITHIN):
                while self._pumps:
                    await asyncio.wait(self._pumps.values())

    async def close(self) -> None:
        """Drop what is not stored: it is not acknowledged, and comes again."""
        self._stopping = True
        pumps = list(self._pumps.values())
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def recall(self, stop: asyncio.Event) -> None:
        """Read which deliveries were appended last: we may have died before the broker saw them acknowledged."""
        owners = sorted({topic.owner for topic in self._by.declared if topic.mqtt == "in"})
        found: list[tuple[int, tuple[int, int]]] = []
        for partition in [name for owner in owners for name in self._by.declared.partitions(owner)]:
            read = functools.partial(self.log.recent_deliveries, partition, 2 * self._by.receive_maximum)
            for record in await patiently(read, stop) or ():
                event = record.event
                if event.meta.delivery is not None and event.meta.delivery[0] == self._by.session:
                    found.append((event.meta.ts, mark(event.meta.delivery[1], event.topic, event.data)))
        # Of all partitions together, oldest first: in a quiet one the newest may be so old that its packet id has
        # been used again since.
        for _, delivery in sorted(found, key=lambda one: one[0]):
            self.deliveries.remember(delivery)

    def take(self, messages: list[Message]) -> None:
        """Judge one wake-up's worth of messages and hand them to their partitions, in order of arrival."""
        if self._stopping:
            return  # not acknowledged: it comes again
        self.metrics.received.inc(len(messages))
        self.metrics.received_bytes.inc(sum(len(message.payload) for message in messages))
        now = time.time()
        for message in messages:
            if not message.packet_id and self._unheld >= limits.MQTT_QOS0_WAITING:
                self.metrics.rejected.labels("qos0_overflow").inc()
                continue
            if not message.packet_id:
                self._unheld += 1
            partition, what = self._judge(message, now)
            waiting = self.waiting.get(partition)
            if waiting is None:
                self.waiting[partition] = [(message, what)]
                if partition not in self._pumps:
                    self._start_pump(partition)
            else:
                waiting.append((message, what))

    def _judge(self, message: Message, now: float) -> tuple[Partition, Accepted | DeadLetter | None]:
        if self._by.sent.echo(message):
            self.metrics.rejected.labels("echo").inc()
            return self._by.stray_partition, None
        topic = message.topic
        if self._by.topic_map.rules:
            topic = self._by.topic_map.resolve(topic) or topic
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
        judged = self._by.ingest.judge(arrived, new_id(), ts)
        if message.dup:
            self.metrics.redelivered.inc()
        if isinstance(judged, Accepted):
            if message.packet_id:
                event = judged.draft.event
                delivery = mark(message.packet_id, event.topic, event.data)
                if message.dup and delivery in self.deliveries:
                    return judged.partition, None
                self.deliveries.remember(delivery)
            return judged.partition, judged
        self.metrics.rejected.labels(judged.reason).inc()
        if not judged.partition and not self._by.sample.keep(message.topic, now):
            return self._by.stray_partition, None  # a stray too many
        return judged.partition or self._by.stray_partition, _letter(judged, message, ts)

    async def _pump(self, partition: Partition) -> None:
        """Append what waits for ``partition``; whatever arrives meanwhile is the next batch."""
        while partition in self.waiting:
            await self._term.confirmed()
            batch = self.waiting.pop(partition, [])
            letters = [what for _, what in batch if isinstance(what, DeadLetter)]
            kept = [(message, what) for message, what in batch if isinstance(what, Accepted) and not what.ephemeral]
            if kept:
                answers = await self.log.append(partition, [what.draft for _, what in kept], patient=True)
                for (message, _), answer in zip(kept, answers, strict=True):
                    if isinstance(answer, Unavailable | Fenced):
                        raise answer  # not acknowledged, so it comes again
                    if isinstance(answer, GatewayError):
                        rejected = Rejected(answer.code, str(answer), partition)
                        self.metrics.rejected.labels(answer.code).inc()
                        letters.append(_letter(rejected, message, int(time.time() * 1000)))
            if letters:
                await patiently(functools.partial(self.log.bury_many, partition, letters))
            for _, what in batch:
                if isinstance(what, Accepted) and what.ephemeral:
                    await patiently(functools.partial(self.log.publish_live, partition, what.draft.event))
            # Only now is it ours. Acknowledging earlier would lose what a crash here takes with it: the broker
            # forgets what it sees acknowledged.
            await self._term.confirmed()
            for message, _ in batch:
                self._acknowledge(message)
            self._unheld -= sum(not message.packet_id for message, _ in batch)
            self.metrics.appended.inc(len(kept))
            if kept:
                self.metrics.latency.observe(max(0.0, time.time() - kept[0][1].draft.event.meta.ts / 1000))

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
        elif partition in self.waiting:
            self._start_pump(partition)


async def patiently(ask: Callable[[], Awaitable[_T]], stop: asyncio.Event | None = None) -> _T | None:
    """Ask the log until it answers, or until ``stop``: then None."""
    while stop is None or not stop.is_set():
        try:
            return await ask()
        except Unavailable as e:
            _logger.warning("waiting for the log: %s", e)
            await asyncio.sleep(limits.LOG_BACKOFF[1])
    return None


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
