"""What inbox and outbox promise, asked of two databases after one run: what was sent, taken and told."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec

Done = list[tuple[str, str, int]]


class Story(msgspec.Struct, frozen=True):
    """One run at rest. Each of ``taken`` and ``told``: id, key and number, in the order in which it was committed."""

    sent: set[str]
    taken: Done
    told: Done
    #: Rows that still wait in the outbox.
    waiting: int = 0


def complaints(story: Story) -> set[str]:
    """Return what was not kept: lost, doubled, order, untold, invented, pending; nothing when all was."""
    found: set[str] = set()
    taken, told = [id for id, _, _ in story.taken], [id for id, _, _ in story.told]
    if story.sent - set(taken):
        found.add("lost")
    if max([*Counter(taken).values(), *Counter(told).values()], default=0) > 1:
        found.add("doubled")
    if set(taken) - set(told):
        found.add("untold")
    if set(told) - set(taken) or set(taken) - story.sent:
        found.add("invented")
    for done in (story.taken, story.told):
        numbers: defaultdict[str, list[int]] = defaultdict(list)
        for _, key, n in done:
            if n not in numbers[key]:
                numbers[key].append(n)
        if any(one != sorted(one) for one in numbers.values()):
            found.add("order")
    if story.waiting:
        found.add("pending")
    return found
