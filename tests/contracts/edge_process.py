"""An edge in a process of its own, to be killed: ``python -m tests.contracts.edge_process URL SECRET SECONDS…``."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gateway import limits
from gateway.edge.process import WEBSOCKET_PATH
from tests import gateways
from tests.contracts.places import PLACES


async def main(url: str, secret: str, *seconds: str) -> None:
    gateways.SECRET = secret.encode()
    limits.PRESENCE_LEASE, limits.PRESENCE_BEAT, limits.PRESENCE_LINGER = map(float, seconds)  # type: ignore[misc]  # shorter than in production
    async with gateways.running_edge(url, PLACES) as edge:
        print(edge.port, flush=True)  # noqa: T201 - how its parent learns it
        await asyncio.Event().wait()


@asynccontextmanager
async def edge_process(url: str, *seconds: float, environment: Mapping[str, str]) -> AsyncIterator[tuple[Process, str]]:
    """The process and where its WebSocket is; ``seconds``: lease, beat and linger. Killed when left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contracts.edge_process"),
        *(url, gateways.SECRET.decode(), *map(str, seconds)),
        stdout=PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        yield process, f"ws://127.0.0.1:{port}{WEBSOCKET_PATH}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
