"""What a partition's recent past holds: the newest records, by offset and by topic, so that recovery reads memory.

Filled from the log when the partition's reader starts and by every batch after that; the oldest leave first. A topic
remembers the ids it holds: an event that was appended twice (its writer lost the answer) is shown once.
"""

from __future__ import annotations

from collections import deque

from gateway import limits
from gateway.core.event import Record
from gateway.core.topic import is_filter, matches


class _Past:
    """One topic's records, oldest first."""

    __slots__ = ("ids", "records")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.ids: set[str] = set()


class Window:
    """The newest records of one partition; at most ``entries`` and ``size`` bytes of payload."""

    def __init__(self, entries: int = limits.WINDOW_ENTRIES, size: int = limits.WINDOW_BYTES) -> None:
        self._entries, self._most = entries, size
        self._all: deque[Record] = deque()
        self._topics: dict[str, _Past] = {}
        self._size = 0
        #: Everything after this offset is here.
        self.floor = 0
        #: Everything after this offset was here once, and no payload of it had more bytes than this.
        self.seen = self.largest = 0
        #: What was asked of it since it last changed: who comes back in a crowd asks what others have asked.
        self._answers: dict[tuple[int, str], list[Record]] = {}
        self._answered = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return self._size

    def start(self, floor: int) -> None:
        """Forget everything; what is added next comes after offset ``floor``."""
        self._all.clear()
        self._topics.clear()
        self._unsay()
        self._size = self.largest = 0
        self.floor = self.seen = floor

    def add(self, record: Record) -> bool:
        """Keep ``record``; return False if its topic holds that id already."""
        topic = record.event.topic
        self.largest = max(self.largest, len(record.event.data))
        past = self._topics.get(topic)
        if past is None:
            past = self._topics[topic] = _Past()
        elif record.event.id in past.ids:
            return False
        past.records.append(record)
        past.ids.add(record.event.id)
        self._all.append(record)
        self._unsay()
        self._size += len(record.event.data)
        while len(self._all) > self._entries or self._size > self._most:
            self._drop()
        return True

    def _unsay(self) -> None:
        if self._answered:
            self._answers.clear()
            self._answered = 0

    def _drop(self) -> None:
        record = self._all.popleft()
        self._size -= len(record.event.data)
        self.floor = record.offset
        past = self._topics[record.event.topic]
        past.records.popleft()
        past.ids.discard(record.event.id)
        if not past.records:
            del self._topics[record.event.topic]

    def covers(self, offset: int) -> bool:
        """Say whether everything after ``offset`` is here."""
        return offset >= self.floor

    def after(self, offset: int, filter: str) -> list[Record]:
        """Return the records after ``offset`` that pass ``filter``, ascending."""
        known = self._answers.get((offset, filter))
        if known is None:
            known = self._find(offset, filter)
            self._answered += len(known) + 1
            if self._answered > limits.WINDOW_ANSWERED:
                self._answers.clear()
                self._answered = len(known) + 1
            self._answers[offset, filter] = known
        return known.copy()

    def _find(self, offset: int, filter: str) -> list[Record]:
        if not is_filter(filter):
            past = self._topics.get(filter)
            return _tail(past.records, offset) if past else []
        found: list[Record] = []
        for topic, past in self._topics.items():
            if past.records[-1].offset > offset and matches(filter, topic):
                found.extend(_tail(past.records, offset))
        found.sort(key=_by_offset)
        return found


def _by_offset(record: Record) -> int:
    return record.offset


def _tail(records: deque[Record], offset: int) -> list[Record]:
    found: list[Record] = []
    for record in reversed(records):
        if record.offset <= offset:
            break
        found.append(record)
    found.reverse()
    return found
