"""One event to everyone who wants it: encoded once per filter and codec, then offered to each client's queue.

Nothing here is done per client but one ``offer``. A batch of events to one filter is joined before it is offered, so
that a thousand watchers share the joining too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from gateway.core.event import Event, Partition, Record
from gateway.core.router import Router


class Sink(Protocol):
    """A client, as fan-out sees it."""

    @property
    def busy(self) -> bool:
        """Something it took has not left yet."""
        ...

    def offer(self, frame: bytes) -> bool:
        """Take a frame for later, or return False: too slow."""
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
        self.sinks: dict[str, dict[Sink, None]] = {}

    def __iter__(self) -> Iterator[Sink]:
        for sinks in self.sinks.values():
            yield from sinks


class Fanout:
    """The filters of one edge process and who wants them."""

    def __init__(self) -> None:
        self._router: Router[Interest] = Router()
        self._interests: dict[str, Interest] = {}
        self._reached: list[dict[Sink, None]] = []
        #: Frames made so far: events x (filters x codecs) that wanted them, whatever the number of clients.
        self.encoded = 0
        #: Frames offered so far.
        self.offered = 0

    def join(self, filter: str, partitions: frozenset[Partition], codec: str, encode: Encode, sink: Sink) -> None:
        """Let ``sink`` have everything that passes ``filter`` from now on."""
        interest = self._interests.get(filter)
        if interest is None:
            interest = self._interests[filter] = Interest(filter, partitions)
            self._router.add(filter, interest)
        interest.encoders.setdefault(codec, encode)
        interest.sinks.setdefault(codec, {})[sink] = None

    def leave(self, filter: str, codec: str, sink: Sink) -> None:
        """Let ``sink`` have no more of ``filter``. A filter that nobody wants is forgotten."""
        interest = self._interests.get(filter)
        sinks = interest.sinks.get(codec) if interest else None
        if interest is None or sinks is None or sinks.pop(sink, self) is self:
            return
        if not sinks:
            del interest.sinks[codec], interest.encoders[codec]
        if not interest.sinks:
            del self._interests[filter]
            self._router.remove(filter)

    def of(self, partition: Partition) -> list[Interest]:
        """Return the interests that ``partition`` may serve."""
        return [i for i in self._interests.values() if partition in i.partitions]

    def wanted(self, partition: Partition) -> bool:
        return any(partition in i.partitions for i in self._interests.values())

    def __len__(self) -> int:
        return len(self._interests)

    def send(self, records: Sequence[Record], events: Iterable[Event] = ()) -> list[Sink]:
        """Offer kept ``records`` and passing ``events`` to all who want them; return the sinks that were too slow."""
        wanted: dict[Interest, list[tuple[Event, Record | None]]] = {}
        match = self._router.match
        for record in records:
            for interest in match(record.event.topic):
                wanted.setdefault(interest, []).append((record.event, record))
        for event in events:
            for interest in match(event.topic):
                wanted.setdefault(interest, []).append((event, None))
        slow: list[Sink] = []
        self._reached = []
        for interest, batch in wanted.items():
            for codec, sinks in interest.sinks.items():
                encode = interest.encoders[codec]
                frames = [encode(interest.filter, event, record) for event, record in batch]
                block = frames[0] if len(frames) == 1 else b"".join(frames)
                self._reached.append(sinks)
                self.encoded += len(frames)
                self.offered += len(frames) * len(sinks)
                slow.extend([sink for sink in sinks if not sink.offer(block)])
        return slow

    def behind(self) -> bool:
        """Say whether most of those whom the last :meth:`send` reached still have it before them."""
        waiting = [sink.busy for sinks in self._reached for sink in sinks]
        return 2 * sum(waiting) > len(waiting)
