"""One event to everyone who wants it: encoded once per filter and codec, then shared by all their queues.

Nothing here is done per client. A batch of events to one filter is joined before it is shared, so that a thousand
watchers share the joining too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, Self

from gateway.core.event import Event, Partition, Record
from gateway.core.router import Router


class Queue(Protocol):
    """Where frames wait for one client."""

    @property
    def busy(self) -> bool:
        """Something it took has not left yet."""
        ...

    def share(self, queues: list[Self], frame: bytes) -> None:
        """Take a frame for later into all of these, of which this is one. Who is too slow for it is given up."""
        ...


class Sink(Protocol):
    """A client, as fan-out sees it."""

    @property
    def queue(self) -> Queue:
        """Always the same one."""
        ...


#: Makes the frame of one event for one filter. ``record`` is None for what is not kept.
Encode = Callable[[str, Event, Record | None], bytes]


class Interest:
    """Everyone who subscribed to one filter, by codec."""

    __slots__ = ("encoders", "filter", "partitions", "sinks")

    def __init__(self, filter: str, partitions: frozenset[Partition]) -> None:
        self.filter = filter
        self.partitions = partitions
        self.encoders: dict[str, Encode] = {}
        self.sinks: dict[str, dict[Queue, Sink]] = {}

    @property
    def count(self) -> int:
        """How many they are."""
        return sum(map(len, self.sinks.values()))

    def __iter__(self) -> Iterator[Sink]:
        for sinks in self.sinks.values():
            yield from sinks.values()


class Fanout:
    """The filters of one edge process and who wants them."""

    def __init__(self) -> None:
        self._router: Router[Interest] = Router()
        self._interests: dict[str, Interest] = {}
        self._reached: list[dict[Queue, Sink]] = []
        #: Frames made so far: events x (filters x codecs) that wanted them, whatever the number of clients.
        self.encoded = 0
        #: Frames taken by queues so far, and their bytes.
        self.offered = self.offered_bytes = 0

    def join(self, filter: str, partitions: frozenset[Partition], codec: str, encode: Encode, sink: Sink) -> None:
        """Let ``sink`` have everything that passes ``filter`` from now on."""
        interest = self._interests.get(filter)
        if interest is None:
            interest = self._interests[filter] = Interest(filter, partitions)
            self._router.add(filter, interest)
        # Who joined before a change of declarations may stand elsewhere, and has not left yet.
        interest.partitions |= partitions
        interest.encoders[codec] = encode
        interest.sinks.setdefault(codec, {})[sink.queue] = sink

    def leave(self, filter: str, codec: str, sink: Sink) -> bool:
        """Let ``sink`` have no more of ``filter``, and say whether it had. A filter that nobody wants is forgotten."""
        interest = self._interests.get(filter)
        sinks = interest.sinks.get(codec) if interest else None
        if interest is None or sinks is None or sinks.pop(sink.queue, None) is None:
            return False
        if not sinks:
            del interest.sinks[codec], interest.encoders[codec]
        if not interest.sinks:
            del self._interests[filter]
            self._router.remove(filter)
        return True

    def of(self, partition: Partition) -> list[Interest]:
        """Return the interests that ``partition`` may serve."""
        return [i for i in self._interests.values() if partition in i.partitions]

    def wanted(self, partition: Partition) -> bool:
        return any(partition in i.partitions for i in self._interests.values())

    def filters(self, topic: str) -> list[str]:
        """Return the filters that let ``topic`` through, of those that somebody has."""
        return [interest.filter for interest in self._router.match(topic)]

    def __len__(self) -> int:
        return len(self._interests)

    def interests(self) -> list[Interest]:
        """Return all of the moment."""
        return list(self._interests.values())

    def send(self, records: Sequence[Record], events: Iterable[Event] = ()) -> None:
        """Hand kept ``records`` and passing ``events`` to all who want them."""
        wanted: dict[Interest, list[tuple[Event, Record | None]]] = {}
        match = self._router.match
        for record in records:
            for interest in match(record.event.topic):
                wanted.setdefault(interest, []).append((record.event, record))
        for event in events:
            for interest in match(event.topic):
                wanted.setdefault(interest, []).append((event, None))
        self._reached = []
        for interest, batch in wanted.items():
            for codec, sinks in list(interest.sinks.items()):  # who is too slow leaves
                encode = interest.encoders[codec]
                frames = [encode(interest.filter, event, record) for event, record in batch]
                block = frames[0] if len(frames) == 1 else b"".join(frames)
                self._reached.append(sinks)
                self.encoded += len(frames)
                self.offered += len(frames) * len(sinks)
                self.offered_bytes += len(block) * len(sinks)
                queues = list(sinks)
                queues[0].share(queues, block)

    def behind(self) -> bool:
        """Say whether most of those whom the last :meth:`send` reached still have it before them."""
        waiting = [queue.busy for sinks in self._reached for queue in sinks]
        return 2 * sum(waiting) > len(waiting)
