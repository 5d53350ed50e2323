"""What workers promise, asked of the story of one run: sent, done in which order, emitted, buried, settled."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec


class Effect(msgspec.Struct, frozen=True):
    """One line of the sink."""

    id: str
    key: str
    n: int
    attempt: int


class Settled(msgspec.Struct, frozen=True):
    """One settle that the log took, as it stood there at that moment."""

    partition: str
    #: Who settled, and who held the lease.
    token: str
    holder: str
    serial: int
    #: The group's cursor before and after.
    before: int
    after: int
    #: A digest of what changed; empty where nothing did.
    what: str = ""


class Story(msgspec.Struct, frozen=True):
    """One run, after everything came to rest."""

    #: Event id → its key and its number in that key, of all that the log acknowledged.
    sent: Mapping[str, tuple[str, int]]
    #: Effects of all workers, in the order in which they happened.
    effects: Sequence[Effect]
    #: Event id → reason and position of each of its dead letters; an append whose answer was lost has two positions.
    buried: Mapping[str, Sequence[tuple[str, str]]]
    #: Event id → the reason it must be buried for: the poison.
    poison: Mapping[str, str]
    #: Entries after the cursors, and parked events.
    lag: int
    parked: int
    #: Whether something was killed, stopped or cut: then an effect may happen, and a letter be written, again.
    faults: bool
    #: In the order of the log server, partition by partition.
    settles: Sequence[Settled] = ()
    #: Events that emit another one, once they are done.
    owing: frozenset[str] = frozenset()
    #: Event id → ids of what was emitted for it.
    emitted: Mapping[str, frozenset[str]] = {}

    @property
    def doubles(self) -> int:
        """Effects that an inbox would have to drop."""
        return sum(count - 1 for count in Counter(effect.id for effect in self.effects).values())


def complaints(story: Story) -> set[str]:
    """Return what was not kept, each in a word or two; nothing when all was."""
    done = {effect.id for effect in story.effects}
    asked = {
        "lost": story.sent.keys() - done - story.buried.keys(),
        "invented": done - story.sent.keys(),
        "order": not _in_order(story.effects),
        "doubled": story.doubles and not story.faults,
        "unburied": any(_reasons(story, id) != {reason} for id, reason in story.poison.items()),
        "buried twice": not story.faults and any(len(set(letters)) < len(letters) for letters in story.buried.values()),
        "bystander": story.buried.keys() - story.poison.keys(),
        "pending": story.lag or story.parked,
        "unemitted": story.owing - story.emitted.keys() - story.buried.keys(),
        "emitted anew": any(len(ids) > 1 for ids in story.emitted.values()) or story.emitted.keys() - done,
        "unfenced": any(one.token != one.holder for one in story.settles),
        "rewound": any(one.after < one.before for one in story.settles),
        "settled twice": any(_same(one, other) for one, other in pairwise(story.settles)),
    }
    return {what for what, found in asked.items() if found}


def _reasons(story: Story, id: str) -> set[str]:
    return {reason for reason, _ in story.buried.get(id, ())}


def _same(one: Settled, other: Settled) -> bool:
    """Whether ``other``, the next of its partition, is ``one`` asked again."""
    if (one.partition, one.token) != (other.partition, other.token):
        return False
    return one.serial == other.serial or one.what == other.what != ""


def _in_order(effects: Sequence[Effect]) -> bool:
    """Whether each key's events had their first effect in the order of their numbers."""
    firsts: defaultdict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for effect in effects:
        if effect.id not in seen:
            seen.add(effect.id)
            firsts[effect.key].append(effect.n)
    return all(numbers == sorted(numbers) for numbers in firsts.values())
