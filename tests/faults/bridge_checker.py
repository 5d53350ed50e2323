"""What must be true of the log after a fault of the bridge, the broker or the log server: device by device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class Reading(msgspec.Struct, frozen=True):
    """One event of the log, or one push to a watcher."""

    device: str
    seq: int
    id: str


class Story(msgspec.Struct, frozen=True):
    #: (device, seq) that the broker acknowledged, in each device's order.
    sent: Sequence[tuple[str, int]]
    #: What is in the log, each partition in its order.
    stored: Sequence[Reading]
    #: What a watcher saw, in its order.
    seen: Sequence[Reading] = ()
    #: What the broker forgot in a crash: it may be missing, and nothing else may.
    forgotten: Iterable[tuple[str, int]] = ()
    #: How often a device may be sent again what it had, from some event on: once for each fault. None: as often as.
    returns: int | None = None


def complaints(story: Story) -> set[str]:
    """The names of all promises that ``story`` breaks; empty when it keeps them."""
    found = set()
    sent, stored = set(story.sent), {(one.device, one.seq) for one in story.stored}
    if sent - stored - set(story.forgotten):
        found.add("lost")
    if stored - sent:
        found.add("phantom")
    ids = {(one.device, one.seq, one.id) for one in story.stored}
    if len(ids) > len(stored):
        found.add("another id")
    if len({id for *_, id in ids}) < len(ids):
        found.add("one id for two")
    if _firsts_out_of_order(story.stored):
        found.add("order")
    if story.returns is not None and max(returns(story.stored).values(), default=0) > story.returns:
        found.add("sent again and again")
    if story.seen:
        if {one.id for one in story.seen} != {one.id for one in story.stored}:
            found.add("seen otherwise")
        if _firsts_out_of_order(story.seen):
            found.add("seen out of order")
    return found


def doubles(readings: Sequence[Reading]) -> int:
    """How many entries are there again, with the id that they had."""
    return len(readings) - len({(one.device, one.seq, one.id) for one in readings})


def returns(readings: Sequence[Reading]) -> dict[str, int]:
    """How often each device's count went back."""
    found: dict[str, int] = {}
    newest: dict[str, int] = {}
    for one in readings:
        found[one.device] = found.get(one.device, 0) + (one.seq <= newest.get(one.device, -1))
        newest[one.device] = one.seq
    return found


def _firsts_out_of_order(readings: Sequence[Reading]) -> bool:
    newest: dict[str, int] = {}
    known: set[tuple[str, int]] = set()
    for one in readings:
        if (one.device, one.seq) not in known:
            known.add((one.device, one.seq))
            if one.seq < newest.get(one.device, -1):
                return True
            newest[one.device] = one.seq
    return False
