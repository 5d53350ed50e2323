"""What a service wants: its reactions made ready to be called, and which of them each topic goes to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway import limits
from gateway.core.declared import Declared, Topic
from gateway.core.delivery import Expired, Undecodable
from gateway.core.event import Event
from gateway.errors import Misconfigured, NotDeclared
from gateway.service import Reaction, Service
from gateway.worker.job import Job


class Ready:
    """A reaction with the decoder of its payload, and what waits for a batch handler."""

    def __init__(self, reaction: Reaction) -> None:
        self.reaction = reaction
        self.call = reaction.call
        self.batch = reaction.batch
        self.timeout = reaction.timeout
        #: Jobs of the next batches, in order.
        self.waiting: deque[Job] = deque()
        self._decode = _decoder(reaction)

    def payload(self, event: Event) -> Any:
        """Return what the function gets for ``event``; raises :class:`Undecodable` or :class:`Expired`."""
        expires = self.reaction.expires
        if expires and (age := time.time() - event.meta.ts / 1000) > expires:
            raise Expired(f"{age:.0f} s old, and {expires:g} s is the most")
        try:
            return self._decode(event)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Undecodable(f"not what {self.reaction.name} takes: {error}") from None


class Want(msgspec.Struct, frozen=True, gc=False):
    """Where the events of one topic go, and what its levels are called."""

    ready: Ready
    variables: Mapping[str, str]
    #: Events with one key keep their order.
    key: str


class Wants:
    """Topic → want. Bounded by ``limits.TOPIC_CACHE``: beyond, it begins anew."""

    def __init__(self, service: Service, declared: Declared) -> None:
        ready = [Ready(reaction) for reaction in service.reactions]
        self._declared = declared
        # One declaration for each reaction: they do not overlap, so which one has a topic is no question.
        self._patterns = Declared([Topic(pattern=one.topic.pattern) for one in service.reactions])
        self._ready = {one.reaction.topic.pattern: one for one in ready}
        self._known: dict[str, Want | None] = {}
        #: Events that one call may take.
        self.widest = max((one.batch for one in ready), default=1) or 1

    def forget(self) -> None:
        """The declarations are others now."""
        self._known.clear()

    def find(self, topic: str) -> Want | None:
        """Return where events of ``topic`` go; None where nobody wants them."""
        try:
            return self._known[topic]
        except KeyError:
            if len(self._known) >= limits.TOPIC_CACHE:
                self._known.clear()
            found = self._known[topic] = self._find(topic)
            return found

    def _find(self, topic: str) -> Want | None:
        try:
            found = self._patterns.find(topic)
        except NotDeclared:
            return None
        try:
            key = self._declared.find(topic).key
        except NotDeclared:
            key = topic  # it was declared when it was appended
        return Want(self._ready[found.topic.pattern], found.bound, key)


def _decoder(reaction: Reaction) -> Callable[[Event], Any]:
    kind = reaction.payload()
    if kind is Event:
        return lambda event: event
    if kind is bytes:
        return lambda event: event.data
    if kind is str:
        return lambda event: event.data.decode()
    try:
        decode = msgspec.json.Decoder(kind).decode
    except TypeError as error:
        raise Misconfigured(f"{reaction.name}: {error}", "annotate it with what msgspec decodes") from None
    return lambda event: decode(event.data)
