"""``gateway edge``: one process of the WebSocket, SSE and HTTP doors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated

import typer

from gateway.adapters.log import Log
from gateway.adapters.tokens import Verifier
from gateway.cli.configuration import Config, Configuration, gather
from gateway.cli.process import LogFormat, LogLevel, Waiting, naming, open_log, probed, serve
from gateway.edge.process import Edge
from gateway.errors import Misconfigured
from gateway.letters import Letters
from gateway.settings import ServiceTable, addressed


def run(
    config: Config = None,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", metavar="APP.SERVICE=URL", help="Where a service's routes answer; once for each."),
    ] = None,
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Run one edge: clients connect to it by WebSocket, SSE and HTTP. Run as many as you like.

    What is asked below /APP/SERVICE goes to that service, where it has routes and services."APP.SERVICE".url is set.
    """
    found = gather(config)
    verifier = Verifier(found.settings)
    at = forwarded(found, service or ())
    serve(lambda stop: _edge(found, verifier, at, stop), log_format, log_level)


def forwarded(found: Configuration, named: Iterable[str] = ()) -> dict[str, str]:
    """Return group → where it answers, of the services with routes: as ``named``, else of the settings.

    Raises :class:`Misconfigured` for what is no service and no address.
    """
    tables = dict(found.settings.services)
    for group, _, url in (one.partition("=") for one in named):
        if group not in found.services:
            raise Misconfigured(f"there is no service {group!r}", "write --service APP.SERVICE=http://HOST:PORT")
        tables[group] = ServiceTable(url=url)
    if wrong := [f"{key} {text}" for key, text in addressed(tables)]:
        raise Misconfigured("\n".join(wrong))
    return {g: tables[g].url for g, one in found.services.items() if one.routes and g in tables and tables[g].url}


async def _edge(found: Configuration, verifier: Verifier, services: dict[str, str], stop: asyncio.Event) -> None:
    at = found.settings.edge
    log = await _log(found, stop)
    if log is None:
        return
    try:
        letters = Letters(log, found.declared, found.settings.gateway.name, found.topic_map, found.decoders)
        edge = Edge(
            log,
            found.declared,
            verifier,
            anonymous=at.anonymous,
            origins=at.allowed_origins,
            letters=letters,
            services=services,
            asyncapi=found.asyncapi,
        )
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
