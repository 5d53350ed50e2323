"""The edges that live: what each says of itself, by the log server's clock."""

from __future__ import annotations

from typing import cast

from gateway import limits
from gateway.adapters.log.link import Link, Script

EDGES = Script("edges")


class Edges:
    """The edges of one gateway. `Log.edges` is one; it raises `Unavailable` while the server is away."""

    def __init__(self, link: Link, gateway: str) -> None:
        self._link = link
        self._key = f"{{{gateway}}}:edges"

    async def tell(self, edge: str, word: bytes) -> list[bytes]:
        """Keep the ``word`` of ``edge`` for `limits.EDGE_SILENT`, or forget it where it is empty; return all words."""
        silent = int(limits.EDGE_SILENT * 1000)
        return cast("list[bytes]", await self._link.run(EDGES, (self._key,), edge, word, silent))
