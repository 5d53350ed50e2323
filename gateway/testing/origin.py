"""The edge of a test, with the routes of its services behind it: one origin, on a free port of loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from gateway.adapters import http
from gateway.adapters.http_operation import operations as routed
from gateway.adapters.http_problem import Problem
from gateway.adapters.listening import listen
from gateway.adapters.log import Log
from gateway.adapters.tokens import KeyRing, Verifier
from gateway.app import App, trusting
from gateway.core.declared import Declared
from gateway.core.openapi import OpenApi
from gateway.edge.operations import operations
from gateway.edge.process import Edge
from gateway.settings import GatewayTable, KeyTable, Settings, TokensTable
from gateway.testing.process import Process

#: The key of the ring that services' tokens name.
SERVICES: Final = "services"


@asynccontextmanager
async def origin(
    log: Log, declared: Declared, processes: Collection[Process], apps: Iterable[App], secret: bytes, folder: Path
) -> AsyncIterator[tuple[str, KeyRing]]:
    """Serve in the block; yields ``http://127.0.0.1:PORT``, and who is believed.

    Those are tokens signed with ``secret``, and with the keys that ``apps`` issue tokens by. Routes are served from
    each process's begin on.
    """
    sock = listen("127.0.0.1", 0)
    at = f"http://127.0.0.1:{sock.getsockname()[1]}"
    file = folder / "token.secret"
    file.touch(mode=0o600)
    file.write_bytes(secret)
    services = KeyTable(id=SERVICES, algorithm="HS256", file=str(file), roles=("service", "device"))
    tokens = TokensTable(hs256_secret_file=str(file), keys=(services,))
    # Keys are asked for past the edge, whose own address is known too late.
    verifier = Verifier(trusting(Settings(gateway=GatewayTable(data=str(folder), origin=at), tokens=tokens), apps))
    for process in processes:
        process.serve(verifier)
    # Each service would have a process and an address of its own; the edge sees no difference.
    server = http.server(http.health(_Unasked(), *(route for one in processes for route in one.hosted.routes)), drain=1)
    behind = [one for process in processes for one in routed(process.group, process.service)]
    edge = Edge(
        log,
        declared,
        verifier,
        services={process.group: at for process in processes},
        openapi=OpenApi((*operations(), *behind), Problem),
    )
    stop, ready = asyncio.Event(), asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve([sock]), name="routes")
            tasks.create_task(edge.run("127.0.0.1", 0, stop, ready), name="edge")
            try:
                await ready.wait()
                yield f"http://127.0.0.1:{edge.port}", verifier.ring
            finally:
                stop.set()
                server.should_exit = True
    finally:
        sock.close()
        await log.close()


class _Unasked:
    """Nobody probes a test."""

    def unready(self) -> list[str]:
        return []

    def metrics(self) -> tuple[bytes, str]:
        return b"", "text/plain; version=0.0.4"
