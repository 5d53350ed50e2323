"""Answers: what a service says to whoever asked, kept for a door of ours or published where a device listens."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from gateway import limits
from gateway.adapters.log import DeadLetter, Log, Reply
from gateway.core.access import ANONYMOUS, Principal, may
from gateway.core.declared import Declared, Found, valid
from gateway.core.delivery import TOLD, emitted_id
from gateway.core.event import ASKED, Draft, Event, Meta, Partition
from gateway.errors import Denied, GatewayError, Refused, TooLarge, Unavailable
from gateway.worker.emitted import TYPES, Emitted

_logger = logging.getLogger("gateway.worker")
_encode = msgspec.json.Encoder().encode

#: The header, and so the user property, by which an answer says that it is an error.
ERROR = "gw-error"


class Failed(msgspec.Struct, frozen=True):
    """The payload of such an answer."""

    #: A stable word, such as ``rejected``.
    code: str
    #: Why, where that is for whoever asked; else it stands in the dead letter alone.
    error: str


class Answers:
    """The answers of one service."""

    def __init__(self, log: Log, declared: Declared, group: str, refused: Callable[[str], None]) -> None:
        """``refused`` counts, by reason, the answers that went nowhere."""
        self._log, self._declared, self._group, self._refused = log, declared, group, refused
        #: Reasons that were told: a device that asks wrongly does so each time.
        self._told: set[str] = set()

    # --- kept: somebody waits at a door of ours ---

    def kept(self, event: Event, said: object) -> bytes | None:
        """Return what a handler returned as the reply to ``event``; None where nobody asked. Raises `TooLarge`."""
        if event.meta.reply_to != ASKED:
            return None
        reply = _encode(said)
        if len(reply) > limits.PAYLOAD_BYTES:
            raise TooLarge(f"the reply has more than {limits.PAYLOAD_BYTES} bytes", "return less")
        return reply

    async def send(self, event: Event, reply: bytes | None) -> None:
        """Send the reply to ``event`` to whoever waits for it; raises :class:`Unavailable`."""
        if event.meta.reply_to == ASKED:
            place = self._declared.find(event.topic).partition
            await self._log.replies.send(place, event.id, Reply(data=reply or b"null"))

    # --- published: a device named a topic (MQTT 5, 4.10) ---

    def published(self, event: Event, said: object) -> list[Emitted]:
        """Return what a handler returned as an event on the topic that the device named; nothing where it named none.

        It leaves as whatever else the delivery emits, and has one id however often that runs. A topic that is not for
        the device's answers, or does not take this one, is counted, and nothing is published: what a device names must
        neither write where it may not, nor undo what was done.
        """
        if self._named(event) and (said is not None or self._is_command(event)):
            return self._published(event, said, {}, 0)
        return []

    async def failed(self, partition: Partition, letter: DeadLetter) -> None:
        """Tell whoever asked that the event is among the dead letters.

        After that, so that it is true; where this process ends in between, whoever asked hears nothing.
        """
        event = Event(letter.topic, b"", letter.id, letter.meta)
        if letter.meta.reply_to == ASKED:
            with suppress(Unavailable):  # who asked hears that no reply came
                await self._log.replies.send(partition, letter.id, Reply(code=letter.reason, error=letter.error))
        elif self._named(event) and self._is_command(event):
            says = Failed(letter.reason, letter.error if letter.reason in TOLD else "")
            try:
                for one in self._published(event, says, {ERROR: letter.reason}, 1):
                    # Not patiently: the lease waits for this.
                    (answer,) = await self._log.append(one.partition, [one.draft])
                    if isinstance(answer, GatewayError):
                        raise answer
            except GatewayError as error:
                self._count(event, error)

    def _published(self, event: Event, said: object, headers: dict[str, str], number: int) -> list[Emitted]:
        try:
            found = self._there(event)
            data = valid(found.topic, said if isinstance(said, bytes) else _encode(said))
        except Refused as error:
            self._count(event, error)
            return []
        meta = Meta(
            ts=time.time_ns() // 1_000_000,
            type=TYPES[found.topic.payload],
            producer=f"service:{self._group}",
            via="service",
            traceparent=event.meta.traceparent,
            cause=event.id,
            headers=headers,
            correlation=event.meta.correlation,
        )
        # Numbers that no event has which the delivery emits.
        id = emitted_id(event.id, self._group, limits.EMITS + number)
        draft = Draft(Event(event.meta.reply_to, data, id, meta), found.key, retain=found.topic.retain)
        return [Emitted(found.partition, draft, found.topic.ephemeral)]

    def _there(self, event: Event) -> Found:
        """Return the declaration of the topic that was named; raises :class:`Refused`."""
        found = self._declared.find(event.meta.reply_to)
        if found.topic.mqtt != "out":
            raise Denied(f"{found.topic.pattern!r} does not leave by MQTT", 'answers need a topic with mqtt = "out"')
        kind, _, name = event.meta.producer.partition(":")
        who = Principal(kind, name) if name else ANONYMOUS
        self._declared.readable(who, event.meta.reply_to)
        own = may(who, [grant for grant in found.topic.read if ":" in grant], found.bound)
        if not own or found.topic.retain:
            # Others hear it too, or take it for what holds from now on: then it is a write of the device's own.
            self._declared.writable(who, event.meta.reply_to)
        return found

    def _named(self, event: Event) -> bool:
        return event.meta.via == "mqtt" and event.meta.reply_to not in ("", ASKED)

    def _is_command(self, event: Event) -> bool:
        try:
            return self._declared.find(event.topic).topic.kind == "command"
        except Refused:  # declared when it was appended
            return False

    def _count(self, event: Event, error: GatewayError) -> None:
        self._refused(error.code)
        if error.code in self._told:
            return
        self._told.add(error.code)
        _logger.warning("%s: no answer to %s on %r: %s", self._group, event.id, event.meta.reply_to[:100], error)
