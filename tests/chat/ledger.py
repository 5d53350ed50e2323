"""The checker: what must be true of rooms, given what senders were told and members saw, and which of it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

#: An entry of a room: as `GET …/history` answers it, or as it came live.
Said = dict[str, Any]


class Acked(msgspec.Struct, frozen=True):
    """A message that its sender was told the number of."""

    room: str
    author: str
    id: str
    text: str
    seq: int


def faults(
    acked: Sequence[Acked],
    histories: Mapping[str, Sequence[Said]],
    seen: Mapping[tuple[str, str], Sequence[Said]],
    *,
    unsure: Collection[str] = (),
) -> list[str]:
    """Say what is wrong.

    ``acked``: of one author in one room in the order in which they were sent, one at a time. ``histories``: room →
    all of its history, from number 1. ``seen``: (room, whose client) → the entries that it ended up with, in the order
    in which it shows them: it may begin anywhere, and has all from there to the end. ``unsure``: ids of what was sent
    and never acknowledged: that may be there, once.
    """
    found = [fault for room, past in histories.items() for fault in _history(room, past)]
    found += _acked(acked, histories, unsure)
    for (room, who), entries in seen.items():
        found += [f"{room}, as {who} sees it: {fault}" for fault in _seen(entries, histories[room])]
    return found


def _history(room: str, past: Sequence[Said]) -> list[str]:
    numbers = [entry["seq"] for entry in past]
    return [] if numbers == [*range(1, len(past) + 1)] else [f"{room}: the numbers are {_short(numbers)}"]


def _acked(acked: Sequence[Acked], histories: Mapping[str, Sequence[Said]], unsure: Collection[str]) -> list[str]:
    found, newest = [], dict[tuple[str, str], int]()
    by_id = Counter(
        (room, entry["author"], entry["id"])
        for room, past in histories.items()
        for entry in past
        if entry["kind"] == "message"
    )
    at = {(room, entry["seq"]): entry for room, past in histories.items() for entry in past}
    for one in acked:
        where = f"{one.room}: {one.id!r} of {one.author}"
        if (times := by_id[one.room, one.author, one.id]) != 1:
            found.append(f"{where}, acknowledged as {one.seq}, is there {times} times")
        entry = at.get((one.room, one.seq), {})
        if (entry.get("author"), entry.get("id")) != (one.author, one.id):
            found.append(f"{where}, acknowledged as {one.seq}, is not at that number")
        elif _text(entry) not in (None, one.text):
            found.append(f"{where} says {entry['text']!r}, and {one.text!r} was sent")
        if one.seq <= newest.get((one.room, one.author), 0):
            found.append(f"{where} has number {one.seq}, and was sent after {newest[one.room, one.author]}")
        newest[one.room, one.author] = one.seq
    known = {(one.room, one.author, one.id) for one in acked}
    for room, author, id in by_id.keys() - known:
        if id not in unsure:
            found.append(f"{room}: {id!r} of {author} is there, and nobody sent it")
        elif (times := by_id[room, author, id]) > 1:
            found.append(f"{room}: {id!r} of {author} is there {times} times")
    return found


def _seen(entries: Sequence[Said], past: Sequence[Said]) -> list[str]:
    numbers = [entry["seq"] for entry in entries]
    first = numbers[0] if numbers else 1
    if numbers != [*range(first, len(past) + 1)]:
        return [f"the numbers are {_short(numbers)}, and the room ends at {len(past)}"]
    found = []
    for entry, is_now in zip(entries, past[first - 1 :], strict=True):
        of_both = [(one["kind"], one["author"], one.get("id", "")) for one in (entry, is_now)]
        if of_both[0] != of_both[1]:
            found.append(f"number {entry['seq']} is {of_both[0]}, and in the history {of_both[1]}")
        elif None not in (_text(is_now), _text(entry)) and _text(entry) != _text(is_now):
            found.append(f"number {entry['seq']} says {entry['text']!r}, and in the history {is_now['text']!r}")
    return found


def _text(entry: Said) -> str | None:
    """What it says, unless that was changed since."""
    return None if entry.get("edited") or entry.get("deleted") else entry.get("text")


def _short(numbers: Sequence[int]) -> str:
    """Say where they do not follow each other."""
    breaks = [f"{a} then {b}" for a, b in pairwise(numbers) if b != a + 1]
    ends = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
    return ", ".join([ends, *breaks[:5]])
