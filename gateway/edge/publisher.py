"""One way into the log for every client of the edge: declared, granted, valid, then appended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway import limits
from gateway.adapters.identity import new_id
from gateway.adapters.log import Log
from gateway.core.access import Principal
from gateway.core.declared import Declared, valid
from gateway.core.event import Appended, Draft, Event, Meta, Position, Publication
from gateway.core.payload import kept_type
from gateway.errors import GatewayError, Refused, Unavailable


class Publisher:
    """Publishes for principals; raises what ``core/declared`` and the log raise, and appends nothing then."""

    def __init__(
        self, declared: Declared, log: Log, published: Callable[[str, int], None] = lambda via, size: None
    ) -> None:
        self.declared = declared
        #: Told of each event that was stored: the door it came through, and the bytes of its payload.
        self._published = published
        self._log = log

    async def publish(self, who: Principal, asked: Publication, reply_to: str = "") -> Appended:
        """Append one event and return where it stands; it is durable as its application's log declares.

        ``reply_to``: see :attr:`Meta.reply_to`; a client does not choose it.

        Raises :class:`Denied`, :class:`NotDeclared`, :class:`BadPayload`, :class:`KeyReused` (the caller's fault),
        :class:`Unavailable`, :class:`StorageFull`, :class:`Busy` (send it again, with the same id or idempotency key).
        """
        found = self.declared.writable(who, asked.topic)
        topic = found.topic
        data = valid(topic, asked.data)
        kind = asked.type.partition(";")[0].strip().lower()
        for what, text in (("id", asked.id), ("idempotency key", asked.idempotency), ("content type", kind)):
            # First printable, which no lone surrogate is: that one has no bytes to count.
            if not text.isprintable() or len(text.encode()) > limits.ID_BYTES:
                raise Refused(f"the {what} is too long or not printable", f"use at most {limits.ID_BYTES} bytes")
        event = Event(
            asked.topic,
            data,
            asked.id or new_id(),
            Meta(
                ts=time.time_ns() // 1_000_000,
                type=kept_type(topic.payload, kind, data),
                producer=str(who),
                via=asked.via,
                traceparent=asked.traceparent,
                headers=asked.headers,
                reply_to=reply_to,
            ),
        )
        if topic.ephemeral:
            await self._log.publish_live(found.partition, event)
            return Appended(Position(0, 0), event.id)
        idempotency = f"{who}/{asked.idempotency}" if asked.idempotency else ""
        draft = Draft(event, found.key, retain=topic.retain, idempotency=idempotency)
        try:
            async with asyncio.timeout(limits.PUBLISH_WITHIN):
                (result,) = await self._log.append(found.partition, [draft])
        except TimeoutError:
            raise Unavailable("the log did not answer in time", "send it again with the same id") from None
        if isinstance(result, GatewayError):
            raise result
        self._published(asked.via, len(data))
        return result
