"""Who is there, topic by topic, as the log server knows it: kept while their edge lives, by the server's clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import msgspec

from gateway import limits
from gateway.adapters.log.keys import part
from gateway.adapters.log.link import Link, Script
from gateway.core.event import Partition

PRESENCE = Script("presence")


class Change(msgspec.Struct, frozen=True):
    """What an edge tells of one client of a topic; ``lost`` ones may come back within ``limits.PRESENCE_LINGER``."""

    what: Literal["enter", "leave", "lost"]
    topic: str
    client: str
    #: The principal; empty for nobody in particular.
    user: str


class There(msgspec.Struct, frozen=True):
    """What the log server answered."""

    #: It knew the edge. Else whoever the edge had told of is forgotten, and to be told again.
    known: bool
    #: Clients of all topics of the partition.
    left: int
    #: Clients that were not taken, because their topics have ``limits.PRESENCE_MOST``.
    refused: int
    #: (client, user) of the topic that was asked about.
    clients: list[tuple[str, str]]


class Presence:
    """The presence of every partition. `Log.presence` is one; it raises `Unavailable` while the server is away.

    A join is told to the partition's tails when a user's first client comes to a topic, a leave when the last of them
    has gone: so who comes back, to whichever edge, was never away. Clients without a user are told of one by one.
    """

    def __init__(self, writes: Callable[[Partition], Link]) -> None:
        self._writes = writes

    async def tell(self, partition: Partition, edge: str, changes: Sequence[Change]) -> There:
        """Renew the lease of ``edge``, for ``limits.PRESENCE_LEASE``, and make ``changes``; the same twice is one.

        A caller passes at most ``limits.PRESENCE_CHANGES``. Edges whose lease is over are let go, with all they held.
        """
        flat = [text for one in changes for text in (one.what, one.topic, one.client, one.user)]
        return await self._run(partition, edge, "", flat)

    async def there(self, partition: Partition, topic: str) -> list[tuple[str, str]]:
        """(client, user) of everyone who is there, at most ``limits.PRESENCE_MOST``."""
        return (await self._run(partition, "", topic, [])).clients

    async def _run(self, partition: Partition, edge: str, topic: str, changes: list[str]) -> There:
        keys = [part(partition, f"presence{name}") for name in ("", ":users", ":held", ":due")]
        known, left, refused, *rest = cast(
            "list[bytes]",
            await self._writes(partition).run(
                PRESENCE,
                [*keys, part(partition, "live")],
                edge,
                int(limits.PRESENCE_LEASE * 1000),
                int(limits.PRESENCE_LINGER * 1000),
                limits.PRESENCE_MOST,
                limits.LIVE_KEPT,
                limits.PRESENCE_SWEEP,
                topic,
                *changes,
            ),
        )
        texts = [text.decode() for text in rest]
        return There(bool(known), int(left), int(refused), list(zip(texts[::2], texts[1::2], strict=True)))
