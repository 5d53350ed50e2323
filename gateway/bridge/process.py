"""The bridge: one of them serves a broker, by a lease; the others stand by and take over."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress

from gateway import limits
from gateway.adapters.log import BridgeLease, Log
from gateway.adapters.metrics import BridgeMetrics
from gateway.adapters.mqtt import Message, MqttClient, Options
from gateway.bridge.inbound import Inbound, Judge, patiently
from gateway.bridge.outbound import Course, Outbound
from gateway.bridge.sent import Sent
from gateway.bridge.term import Term
from gateway.core.declared import Declared
from gateway.core.event import Partition
from gateway.core.ingest import Decode, Ingest, Sample
from gateway.core.mapping import TopicMap, apart
from gateway.errors import Fenced, GatewayError, Misconfigured, Unavailable
from gateway.settings import redacted

_logger = logging.getLogger("gateway.bridge")

#: A client id that can name keys and a group as it is.
_PLAIN = re.compile(r"[\w.-]{1,100}", re.ASCII)


class Bridge:
    """Serves one broker while it holds the lease named after its client id; else it stands by.

    All that may serve one broker have one client id, so its session is served by the lease's holder alone. Bridges of
    different brokers need different ones.
    """

    def __init__(
        self,
        log: Log,
        declared: Declared,
        options: Options,
        *,
        topic_map: TopicMap | None = None,
        decoders: Mapping[str, Decode] | None = None,
        gateway: str = "gateway",
        inbound: type[Inbound] = Inbound,
        outbound: type[Outbound] = Outbound,
        term: type[Term] = Term,
    ) -> None:
        """``inbound``, ``outbound`` and ``term``: tests break them on purpose."""
        self.log = log
        self.metrics = BridgeMetrics(log.counters)
        self._declared = declared
        self._options = options
        self._inbound, self._outbound, self._term = inbound, outbound, term
        self._name = lease_name(options.client_id)
        broker = redacted(options.url).rpartition("://")[2]
        self._worker = f"{socket.gethostname()}:{os.getpid()} at {broker}"
        self._judge = Judge(
            declared,
            topic_map or TopicMap([]),
            Ingest(declared, decoders or {}, options.client_id),
            options.client_id,
            options.receive_maximum,
            f"{gateway}.0",
            Sample(),
            Sent(),
        )
        self._down: str = "not connected to the broker yet"
        #: Who serves the broker while we stand by; empty while it is us, or not known yet.
        self.stands_by_for = ""
        #: Of the current term; None while standing by.
        self.client: MqttClient | None = None
        self.inbound: Inbound | None = None
        self._serving: Term | None = None
        self._course: Course | None = None
        self._ways: list[Outbound] = []
        #: Who runs them, and as what.
        self._carrying: asyncio.TaskGroup | None = None
        self._sending: list[asyncio.Task[None]] = []

    @property
    def filters(self) -> tuple[str, ...]:
        """What it subscribes to: the upward topics by name, no two of which a message passes."""
        return apart([*(t.filter for t in self._declared if t.mqtt == "in"), *self._judge.topic_map.filters()])

    @property
    def left_out(self) -> int:
        """How many messages that no topic claims were counted and not kept."""
        return self._judge.sample.left_out

    @property
    def standing(self) -> str:
        """What a ready bridge says of itself."""
        return f"standby: {self.stands_by_for} serves the broker" if self.stands_by_for else "ok"

    def unready(self) -> list[str]:
        """Return why nothing is carried now; nothing when all is well, or when another bridge does it."""
        down = [f"broker: {self._down}"] if self._down and not self.stands_by_for else []
        if not all(way.begun for way in self._ways):
            down.append("mqtt out: the cursors have not begun, and what is published now does not leave")
        return down + self.log.unready()

    async def redeclare(self, declared: Declared, topic_map: TopicMap) -> str:
        """Carry what these say from now on; return what that changed. Nothing under way is lost.

        Raises :class:`Misconfigured` or :class:`Unavailable` where broker or log do not take it: then nothing changes.
        """
        before = self.filters
        old, old_map = self._declared.copy(), TopicMap(self._judge.topic_map.rules)
        # First of all: what a new filter lets in must find its declaration.
        self._declared.become(declared)
        self._judge.topic_map.become(topic_map)
        try:
            if self._serving is not None:
                with suppress(Fenced):  # then another bridge serves the broker
                    await self.log.fence(self._partitions("in"), self._name, self._serving.lease.term)
            if self.client is not None:
                await self.client.resubscribe(self.filters)
        except GatewayError:
            self._declared.become(old)
            self._judge.topic_map.become(old_map)
            raise
        known = {way.partition for way in self._ways}
        if self._course is not None:
            self._ways += [self._outbound(self._course, one) for one in self._partitions("out") if one not in known]
        if self._carrying is not None:
            self._begin(self._carrying)
        new, gone = set(self.filters) - set(before), set(before) - set(self.filters)
        return f"subscribed to {', '.join(sorted(new)) or 'nothing new'}, left {', '.join(sorted(gone)) or 'nothing'}"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve the broker, or stand by, until ``stop`` is set.

        A term: the lease, fences against bridges of earlier ones, the memory of recent deliveries, then the broker. Its
        end: what is under way is appended, answered and acknowledged, at most `limits.DRAIN_WITHIN` long; then the
        broker, then the lease, then the log. What did not make it comes again. A lease that is lost ends a term at
        once, with nothing published or acknowledged. Raises what no waiting mends, in a group: :class:`Misconfigured`
        for refused credentials, rights and a client id that a client beside the bridges uses.
        """
        async with asyncio.TaskGroup() as group:
            log = group.create_task(self.log.run(), name="log")
            delay = group.create_task(self.metrics.watch_loop(), name="loop-delay")
            while (lease := await self._stand_by(stop)) is not None:
                try:
                    await self._serve(self._term(lease), stop)
                except* Fenced as lost:
                    _logger.warning("stands by: %s", lost.exceptions[0])
                finally:
                    self.metrics.active.set(0)
                    self.client = self.inbound = self._serving = self._course = None
                    self._ways, self._sending = [], []
                    self._down = "not connected to the broker yet"
            delay.cancel()
            log.cancel()

    async def _stand_by(self, stop: asyncio.Event) -> BridgeLease | None:
        """Return the lease once it is ours; None when asked to stop."""
        lease = self.log.bridge_lease(self._name, self._worker, limits.BRIDGE_LEASE)
        while not stop.is_set():
            holder = ""
            with suppress(Unavailable):  # `unready` says why
                holder = await lease.take()
                if not holder:
                    self.stands_by_for = ""
                    return lease
            if holder and holder != self.stands_by_for:
                _logger.info("stands by: %s serves the broker", holder)
            self.stands_by_for = holder or self.stands_by_for
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.BRIDGE_TRY):
                    await stop.wait()
        return None

    async def _serve(self, term: Term, stop: asyncio.Event) -> None:
        inbound = self.inbound = self._inbound(self.log, self._judge, term, self.metrics, self._acknowledge)
        client = self.client = MqttClient(
            self._options,
            self.filters,
            inbound.take,
            on_new_session=inbound.deliveries.forget,
            on_connected=self._connected,
            on_disconnected=self._disconnected,
            permit=term.confirmed,
        )
        course = self._course = Course(
            self.log,
            self._declared,
            client,
            term,
            self.metrics,
            self._judge.sent,
            f"bridge.{self._name}",
            self._worker,
        )
        self._ways += [self._outbound(course, partition) for partition in self._partitions("out")]
        self._serving = term
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(self._keep(term, client), name="bridge lease")
            fencing = functools.partial(self.log.fence, self._partitions("in"), self._name, term.lease.term)
            await patiently(fencing, stop)
            await inbound.recall(stop)
            if not stop.is_set():
                await self._carry(client, term, inbound, stop)
            for _ in range(2):  # a moment's silence of the log is no reason to let others wait; at worst it expires
                with suppress(Unavailable):
                    await term.lease.release()
                    break
                await asyncio.sleep(limits.BRIDGE_TRY)
            keeping.cancel()

    async def _carry(self, client: MqttClient, term: Term, inbound: Inbound, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._connect(client, term), name="mqtt")
            self._carrying = group
            self._begin(group)
            self.metrics.active.set(1)
            try:
                await inbound.until(stop)
                self._carrying = None
                await self._drain(inbound)
            finally:
                self._carrying = None
                await inbound.close()
            # The way out first: what it hears from the broker until then it remembers.
            for task in (*self._sending, reading):
                task.cancel()

    def _begin(self, group: asyncio.TaskGroup) -> None:
        """Begin the ways out that have not begun."""
        for way in self._ways[len(self._sending) :]:
            self._sending.append(group.create_task(way.run(), name=f"out {way.partition}"))

    async def _drain(self, inbound: Inbound) -> None:
        """Take nothing new, and see what is under way through."""
        for way in self._ways:
            way.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.DRAIN_WITHIN):
                await inbound.drain()
                if self._sending:
                    await asyncio.wait(self._sending)

    async def _keep(self, term: Term, client: MqttClient) -> None:
        try:
            await term.keep()
        except Fenced:
            client.abandon()
            raise

    async def _connect(self, client: MqttClient, term: Term) -> None:
        try:
            await client.run()
        except Misconfigured:
            # If the session is another's because the lease is, this does not return.
            term.doubt()
            await term.confirmed()
            raise

    def _acknowledge(self, message: Message) -> None:
        if self.client is not None:
            self.client.ack(message)

    def _partitions(self, way: str) -> list[Partition]:
        owners = sorted({topic.owner for topic in self._declared if topic.mqtt == way})
        return [name for owner in owners for name in self._declared.partitions(owner)]

    def _connected(self, session_present: bool) -> None:
        self._down = ""
        known = "a session it kept" if session_present else "a new session"
        _logger.info("at the broker, in %s; subscribed to %s", known, ", ".join(self.filters) or "nothing")

    def _disconnected(self, error: GatewayError) -> None:
        self._down = str(error)
        self.metrics.reconnects.inc()
        _logger.warning("broker: %s", error)


def lease_name(client_id: str) -> str:
    """Return the word that names lease, fences and cursors of all bridges with ``client_id``."""
    if _PLAIN.fullmatch(client_id):
        return client_id
    return hashlib.blake2b(client_id.encode(), digest_size=12).hexdigest()
