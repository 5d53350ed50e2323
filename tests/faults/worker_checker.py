"""What workers promise, asked of the story of one run: sent, done in which order, buried."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec


class Effect(msgspec.Struct, frozen=True):
    """One line of the sink."""

    id: str
    key: str
    n: int
    attempt: int


class Story(msgspec.Struct, frozen=True):
    """One run, after everything came to rest."""

    #: Event id → its key and its number in that key, of all that the log acknowledged.
    sent: dict[str, tuple[str, int]]
    #: Effects of all workers, in the order in which they happened.
    effects: list[Effect]
    #: Event id → reasons of its dead letters.
    buried: dict[str, set[str]]
    #: Event id → the reason it must be buried for: the poison.
    poison: dict[str, str]
    #: Entries after the cursors, and parked events.
    lag: int
    parked: int
    #: Whether something was killed, stopped or cut: then an effect may happen again.
    faults: bool

    @property
    def doubles(self) -> int:
        """Effects that an inbox would have to drop."""
        return sum(count - 1 for count in Counter(effect.id for effect in self.effects).values())


def complaints(story: Story) -> set[str]:
    """Return what was not kept: lost, order, invented, doubled, unburied, bystander, pending; nothing when all was."""
    found: set[str] = set()
    done = {effect.id for effect in story.effects}
    if story.sent.keys() - done - story.buried.keys():
        found.add("lost")
    if done - story.sent.keys():
        found.add("invented")
    firsts: defaultdict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for effect in story.effects:
        if effect.id not in seen:
            seen.add(effect.id)
            firsts[effect.key].append(effect.n)
    if any(numbers != sorted(numbers) for numbers in firsts.values()):
        found.add("order")
    if story.doubles and not story.faults:
        found.add("doubled")
    if any(story.buried.get(id) != {reason} for id, reason in story.poison.items()):
        found.add("unburied")
    if story.buried.keys() - story.poison.keys():
        found.add("bystander")
    if story.lag or story.parked:
        found.add("pending")
    return found
