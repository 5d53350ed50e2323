"""An edge in a process of its own, to be killed: ``python -m tests.contracts.edge_process URL SECRET SECONDS…``."""

from __future__ import annotations

import asyncio
import sys

from gateway import limits
from tests import gateways
from tests.contracts.places import PLACES


async def main(url: str, secret: str, *seconds: str) -> None:
    gateways.SECRET = secret.encode()
    limits.PRESENCE_LEASE, limits.PRESENCE_BEAT, limits.PRESENCE_LINGER = map(float, seconds)  # type: ignore[misc]  # shorter than in production
    async with gateways.running_edge(url, PLACES) as edge:
        print(edge.port, flush=True)  # noqa: T201 - how its parent learns it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
