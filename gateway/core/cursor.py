"""Where an SSE client stands: one position for each partition of its filter, in one line of text.

It travels as the event id of the stream and comes back as ``Last-Event-ID``, so a browser resumes exactly, whatever
its filter spans. ``devices.0:1760000000-42,devices.3:1760000000-7``; a filter inside one partition has one part.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway import limits
from gateway.core.event import Partition, Position
from gateway.core.resume import parse as parse_position
from gateway.errors import Refused


def render(positions: Mapping[Partition, Position]) -> str:
    """Return the cursor of ``positions``."""
    return ",".join(f"{partition}:{position}" for partition, position in positions.items())


def parse(text: str, partitions: frozenset[Partition]) -> dict[Partition, Position]:
    """Return the positions in ``text`` that are of ``partitions``; raises :class:`Refused` for no cursor, and for none.

    The filter may meet less by now than when it was given, and a browser that is refused does not come back.
    """
    remedy = "send a Last-Event-ID that this stream gave, or none"
    if len(text) > limits.CURSOR_BYTES:
        raise Refused("the cursor is too long", remedy)
    positions: dict[Partition, Position] = {}
    for part in text.split(","):
        partition, _, at = part.rpartition(":")
        epoch, _, offset = at.partition("-")
        position = parse_position(epoch, int(offset)) if offset.isascii() and offset.isdigit() else None
        if position is None or partition in positions:
            raise Refused(f"{part[:60]!r} is no position of this stream", remedy)
        positions[partition] = position
    known = {partition: position for partition, position in positions.items() if partition in partitions}
    if not known:
        raise Refused(f"{text[:60]!r} is no position of this stream", remedy)
    return known
