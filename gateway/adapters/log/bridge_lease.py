"""The lease of one broker: which bridge serves it, by the log server's clock, and which appends it fences."""

from __future__ import annotations

import secrets
from typing import cast

from gateway.adapters.log.keys import part
from gateway.adapters.log.link import Link, Script
from gateway.core.event import Partition
from gateway.errors import Fenced

BRIDGE, FENCE = Script("bridge"), Script("fence")


class BridgeLease:
    """One process's claim to serve a broker. `Log.bridge_lease` makes it; `take` it, `renew` it, `release` it.

    A lost reply does no harm: each call may be made again. All raise `Unavailable` while the server is away.
    """

    def __init__(self, link: Link, gateway: str, name: str, holder: str, ttl: float) -> None:
        """Use `Log.bridge_lease`."""
        self._link = link
        self._key = f"{{{gateway}}}:bridge:{name}"
        self._token = secrets.token_hex(12)
        self._holder = holder
        #: Seconds after its last renewal when another may take it.
        self.ttl = ttl
        #: A number for each time that it changed hands, ever growing; 0 before it was taken.
        self.term = 0

    async def take(self) -> str:
        """Who has it: empty where it is ours now, else the holder's own words. Free and expired ones are given."""
        reply = await self._ask("take")
        if reply == b"FENCED":
            raise self._lost()
        verdict, word = cast("tuple[bytes, bytes]", tuple(cast("list[bytes]", reply)))
        if verdict == b"HELD":
            return word.decode(errors="replace") or "another bridge"
        self.term = int(word)
        return ""

    async def renew(self) -> None:
        """Extend it, also where it expired and nobody took it; raises `Fenced` once another has it."""
        if await self._ask("renew") == b"FENCED":
            raise self._lost()

    async def release(self) -> None:
        """Let another take it at once."""
        await self._ask("release")

    async def _ask(self, verb: str) -> object:
        return await self._link.run(BRIDGE, (self._key,), verb, self._token, self._holder, int(self.ttl * 1000))

    def _lost(self) -> Fenced:
        return Fenced("another bridge serves the broker now", "it takes over again when that one ends")


async def fence(link: Link, partition: Partition, name: str, term: int) -> None:
    """Refuse the appends of bridge ``name``'s earlier terms to ``partition``; raises `Fenced` where a later one came.

    Also raises `Unavailable`.
    """
    if await link.run(FENCE, (fence_key(partition, name),), term) == b"FENCED":
        raise Fenced(f"a bridge of a later term appends to {partition}", "it takes over again when that one ends")


def fence_key(partition: Partition, name: str) -> str:
    return part(partition, f"fence:{name}")
