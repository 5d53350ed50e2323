"""``gateway edge``: one process of the WebSocket, SSE and HTTP doors."""

from __future__ import annotations

import asyncio

from gateway.adapters.log import Log
from gateway.adapters.tokens import Verifier
from gateway.cli.configuration import Config, Configuration, gather
from gateway.cli.process import LogFormat, LogLevel, Waiting, naming, open_log, probed, serve
from gateway.edge.process import Edge


def run(config: Config = None, log_format: LogFormat = "text", log_level: LogLevel = "info") -> None:
    """Run one edge: clients connect to it by WebSocket, SSE and HTTP. Run as many as you like."""
    found = gather(config)
    verifier = Verifier(found.settings)
    serve(lambda stop: _edge(found, verifier, stop), log_format, log_level)


async def _edge(found: Configuration, verifier: Verifier, stop: asyncio.Event) -> None:
    at = found.settings.edge
    log = await _log(found, stop)
    if log is None:
        return
    try:
        edge = Edge(log, found.declared, verifier, anonymous=at.anonymous, origins=at.allowed_origins)
        tls = (at.tls_cert, at.tls_key) if at.tls_cert else None
        with naming(at.host, at.port):
            await edge.run(at.host, at.port, stop, tls=tls, proxies=at.proxies if at.behind_proxy else ())
    finally:
        await log.close()


async def _log(found: Configuration, stop: asyncio.Event) -> Log | None:
    waiting = Waiting()
    opening = asyncio.create_task(open_log(found, stop, waiting), name="open the log")
    done, _ = await asyncio.wait([opening], timeout=0.5)
    if done:
        return opening.result()
    # The log server is late: until it comes, somebody must answer the probes at our address.
    async with probed(waiting, found.settings.edge.host, found.settings.edge.port):
        return await opening
