"""What becomes of an edge's subscriptions and streams when the declarations change under them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from gateway import limits
from gateway.core.declared import Declared
from gateway.core.standing import Redecision
from gateway.edge.client import Client
from gateway.edge.revocations import Held
from gateway.edge.shared import Shared


def redecide(edge: Shared, clients: Collection[Client], held: Collection[Held], old: Declared) -> tuple[int, int]:
    """Decide again about all of them, now that ``edge`` declares something else than ``old``.

    Nothing waits between the change and this, so nobody gets an event that he may not read. Return how many ended,
    and how many may stay but come back, since they stand elsewhere.
    """
    decide = Redecision(old, edge.declared)
    returning: list[tuple[Client, str]] = []
    ended = moved = 0
    for client in list(clients):
        left, back = client.redecided(decide.of)
        ended += left
        returning += [(client, channel) for channel in back]
    for stream in list(held):
        verdict = decide.of(stream.grant.principal, stream.filter)
        ended += verdict == "ends"
        moved += verdict == "returns"
        if verdict != "stays":
            stream.finish()  # EventSource comes back with the cursor that it has, and is answered anew
    if returning:
        edge.spawn(_return(returning), "return-redeclared")
    return ended, moved + len(returning)


async def _return(returning: Sequence[tuple[Client, str]]) -> None:
    """Tell them to subscribe again, paced: each of them does so at once."""
    for start in range(0, len(returning), limits.RETURNS_AT_ONCE):
        if start:
            await asyncio.sleep(limits.RETURN_PAUSE)
        for client, channel in returning[start : start + limits.RETURNS_AT_ONCE]:
            client.again(channel)
