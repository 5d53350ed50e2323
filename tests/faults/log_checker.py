"""What must be true of a log after a fault: asked of what was sent, acknowledged, stored and seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.core.event import Position

#: The id of a control entry in `Story.stored`.
CONTROL = ""


class Story(msgspec.Struct, frozen=True):
    """One partition, from the first draft to the last reading. ``sent`` is the order in which callers asked."""

    sent: Sequence[str]
    acknowledged: Mapping[str, Position]
    #: Every entry that is there in the end, control entries included.
    stored: Sequence[tuple[str, Position]]
    #: What one tail saw from the first entry on, control entries left out.
    seen: Sequence[tuple[str, Position]] = ()
    #: How often the server began a life (each opens one epoch).
    lives: int = 1
    #: A lost reply may store an event twice, with one id.
    doubles: bool = False


def complaints(story: Story) -> set[str]:
    """The names of all promises that ``story`` breaks; empty when it keeps them."""
    found = set()
    events = [(id, at) for id, at in story.stored if id != CONTROL]
    ids = [id for id, _ in events]
    at_offset = {at.offset: id for id, at in story.stored}
    if story.acknowledged.keys() - set(ids):
        found.add("lost")
    if set(ids) - set(story.sent):
        found.add("phantom")
    if len(ids) != len(set(ids)) and not story.doubles:
        found.add("double")
    place = {id: index for index, id in enumerate(story.sent)}
    firsts = [place[id] for id in _firsts(ids) if id in place]
    if firsts != sorted(firsts):
        found.add("order")
    offsets = [at.offset for _, at in story.stored]
    if offsets != list(range(offsets[0], offsets[0] + len(offsets))) if offsets else False:
        found.add("hole")
    if len(set(offsets)) != len(offsets) or offsets != sorted(offsets):
        found.add("reused")
    if any(at_offset.get(at.offset, id) != id for id, at in story.acknowledged.items()):
        found.add("reused")
    if sum(id == CONTROL for id, _ in story.stored) != story.lives:
        found.add("epochs")
    if story.seen and list(story.seen) != events:
        found.add("seen otherwise")
    return found


def _firsts(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ids))
