"""The order of one partition in one group: a lane per key, parked heads that hold their lane, and a cursor.

Everything up to the cursor is finished, parked or of no interest; so the cursor and the parked are all that has to
outlive the worker. Events of one key run one at a time, in publish order; keys run side by side. An event that must
wait is parked with all that stand behind it in its lane: they hold no slot, and follow it in order. What a dead worker
may have been handling is a suspect: it is given out apart, so that it can be run alone.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

import msgspec

from gateway import limits
from gateway.core.delivery import Ack, Bury, Park, Verdict


class Item(msgspec.Struct, gc=False, weakref=False, eq=False):
    """One event in its lane. ``epoch`` and ``offset`` name its entry; the worker keeps the entry itself."""

    epoch: int
    offset: int
    key: str
    #: Failed deliveries so far.
    attempts: int = 0
    #: Workers that died while they handled it.
    crashes: int = 0
    parked: bool = False
    #: When a parked head may run, by the worker's clock in seconds; 0 for at once.
    due: float = 0.0
    #: When it came into the log, in milliseconds since 1970; for people.
    ts: int = 0
    #: What the last failure said.
    error: str = ""
    #: A worker died, and may have been handling it.
    suspect: bool = False
    #: It was taken, and has not come back.
    running: bool = False
    #: It left its lane, and may still stand in a queue.
    done: bool = False


class Changes(msgspec.Struct):
    """What the log has to remember since the last time; all of it in one call, or none."""

    #: Everything up to this offset is finished or parked.
    cursor: int
    #: The oldest unfinished offset: trimming stops before it.
    oldest: int
    parked: list[Item]
    #: Offsets that are parked no more; the log may never have heard that they were.
    released: list[int]
    buried: list[tuple[Item, Bury]]
    #: Suspects that came back: their crashes are forgotten.
    survived: list[int]


class Lanes:
    """One partition's items of one group. Bounded by ``limits.LANE``, ``limits.PARKED`` and ``limits.PREFETCH``."""

    def __init__(self, cursor: int, parked: Iterable[Item] = (), suspects_to: int = 0) -> None:
        """Start after ``cursor``. A worker that died was handling parked items, or what came up to ``suspects_to``."""
        self._cursor = cursor
        self._suspects_to = suspects_to
        #: Offset up to which entries were read.
        self.read = cursor
        #: Whether more has changed than how far was read: what was decided should not wait to be remembered.
        self.pressing = False
        #: Unfinished items that are not parked, in order of offset.
        self._open: dict[int, Item] = {}
        self._parked: dict[int, Item] = {}
        #: The first of them; None where it has to be looked for.
        self._oldest: int | None = None
        self._lanes: dict[str, deque[Item]] = {}
        self._ready: deque[Item] = deque()
        self._suspects: deque[Item] = deque()
        self._due: list[tuple[float, int, Item]] = []
        #: Offset → the item to be remembered as parked, or None to be forgotten.
        self._news: dict[int, Item | None] = {}
        #: The last one that is finished, of those that were read.
        self._done_to = 0
        self._buried: list[tuple[Item, Bury]] = []
        self._survived: list[int] = []
        #: Parked while one before it was not finished, so after the cursor: it will be read, and is here already.
        self._ahead: set[int] = set()
        for item in sorted(parked, key=lambda i: i.offset):
            item.suspect = suspects_to > 0
            self._ahead.add(item.offset)
            self.restore(item)

    def __len__(self) -> int:
        """Unfinished items, parked ones among them."""
        return len(self._open) + len(self._parked)

    @property
    def parked(self) -> int:
        return len(self._parked)

    @property
    def suspects(self) -> bool:
        """Whether ``take_suspect`` may have one."""
        return bool(self._suspects)

    @property
    def oldest(self) -> Item | None:
        """The unfinished item that has been here longest."""
        if self._oldest is None:
            self._oldest = min(self._parked, default=None)
        first = next(iter(self._open), None)
        if self._oldest is None or (first is not None and first < self._oldest):
            return None if first is None else self._open[first]
        return self._parked[self._oldest]

    @property
    def full(self) -> bool:
        """Whether nothing more may be read now."""
        return len(self._parked) >= limits.PARKED or len(self._open) >= limits.PREFETCH

    def add(self, item: Item) -> bool:
        """Take the next event that the group wants; offsets only rise. Return whether it was not there before."""
        self.read = item.offset
        if item.offset in self._ahead:
            return False
        item.suspect = item.offset <= self._suspects_to
        self._open[item.offset] = item
        self._join(item)
        return True

    def restore(self, item: Item) -> None:
        """Take an item that the log knows as parked: from the worker before, or a replay that was asked for."""
        item.parked, self._oldest = True, None
        self._parked[item.offset] = item
        self._join(item)

    def skip(self, offset: int) -> None:
        """Note that entries up to ``offset`` were read, and the group does not want them."""
        self.read = max(self.read, offset)

    def take(self, most: int, now: float) -> list[Item]:
        """Return at most ``most`` items to be handled now, of different keys; each must come back by ``settle``."""
        self._wake(now)
        taken: list[Item] = []
        while self._ready and len(taken) < most:
            item = self._ready.popleft()
            if not item.done:
                item.running = True
                taken.append(item)
        return taken

    def take_suspect(self, now: float) -> Item | None:
        """Return one suspect to be handled alone; it must come back by ``settle`` before the next is taken."""
        self._wake(now)
        while self._suspects:
            item = self._suspects.popleft()
            if not item.done:
                item.running = True
                return item
        return None

    def next_due(self) -> float | None:
        """Return when the next parked head may run; None where none is waiting. It may be one that is gone."""
        return self._due[0][0] if self._due else None

    def settle(self, item: Item, verdict: Verdict, now: float) -> None:
        """Note how the delivery of a taken item ended."""
        item.running, self.pressing = False, True
        if item.suspect:
            # Whatever it did, it killed nobody.
            item.suspect, item.crashes = False, 0
            self._survived.append(item.offset)
        lane = self._lanes[item.key]
        if not isinstance(verdict, Park):
            self._finish(lane, verdict)
            return
        item.attempts, item.error, item.due = verdict.attempts, verdict.error, now + verdict.after
        for one in lane:
            if not one.parked or one is item:
                self._park(one)
        self._offer(item)
        self._shorten(lane)

    def hand_over(self) -> None:
        """Park what has not ended and stands before what has, so that nothing finished is read again by the next.

        Nothing may be running any more; what was cut short is as if it had not begun.
        """
        for offset in [offset for offset in self._open if offset < self._done_to]:
            self._park(self._open[offset])

    def changes(self) -> Changes | None:
        """Return what is to be remembered since the last call; None where nothing changed."""
        cursor = next(iter(self._open)) - 1 if self._open else self.read
        if cursor == self._cursor and not (self._news or self._buried or self._survived):
            return None
        self._cursor = cursor
        first = self.oldest
        oldest = cursor + 1 if first is None else min(first.offset, cursor + 1)
        parked = [item for item in self._news.values() if item is not None]
        released = [offset for offset, item in self._news.items() if item is None]
        found = Changes(cursor, oldest, parked, released, self._buried, self._survived)
        self._news, self._buried, self._survived, self.pressing = {}, [], [], False
        return found

    def _join(self, item: Item) -> None:
        lane = self._lanes.get(item.key)
        if lane is None:
            self._lanes[item.key] = deque((item,))
            self._offer(item)
            return
        lane.append(item)
        if lane[0].parked and not item.parked:
            self._park(item)
            self._shorten(lane)

    def _offer(self, item: Item) -> None:
        """The head of a lane: it may run now, or when it is due."""
        if item.due > 0.0:
            heapq.heappush(self._due, (item.due, item.offset, item))
        elif item.suspect:
            self._suspects.append(item)
        else:
            self._ready.append(item)

    def _wake(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            item = heapq.heappop(self._due)[2]
            if not item.done:
                item.due = 0.0
                self._offer(item)

    def _park(self, item: Item) -> None:
        if not item.parked:
            item.parked = True
            del self._open[item.offset]
            self._parked[item.offset] = item
            if self._oldest is not None:
                self._oldest = min(self._oldest, item.offset)
        self._news[item.offset], self.pressing = item, True

    def _shorten(self, lane: deque[Item]) -> None:
        # One that runs this moment is left alone: if it fails, this is asked again.
        if len(lane) > limits.LANE and not lane[0].running:
            self._finish(lane, Bury("lane_full", f"{limits.LANE} events wait behind it"))

    def _finish(self, lane: deque[Item], verdict: Ack | Bury) -> None:
        """The head of ``lane`` is over, and the next one's turn has come."""
        item = lane.popleft()
        item.done = True
        if item.offset <= self.read:
            self._done_to = max(self._done_to, item.offset)
        if item.parked:
            del self._parked[item.offset]
            if item.offset == self._oldest:
                self._oldest = None
            # Even where it was parked a moment ago and nobody was told: the log may know it from an earlier time.
            self._news[item.offset] = None
        else:
            del self._open[item.offset]
        if isinstance(verdict, Bury):
            self._buried.append((item, verdict))
        if lane:
            self._offer(lane[0])
        else:
            del self._lanes[item.key]
