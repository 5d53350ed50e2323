"""``gateway edge``: one process of the WebSocket, SSE and HTTP doors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Annotated

import msgspec
import typer

from gateway.adapters.tokens import Verifier
from gateway.cli.configuration import Config, Configuration, gather
from gateway.cli.process import LogFormat, LogLevel, Probe, Waiting, address, naming, open_log, probed, serve
from gateway.cli.reloading import Reload
from gateway.core.rate import Rate
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
    reuse_port: Annotated[
        bool,
        typer.Option("--reuse-port", help="Share the port with other edges of this machine, as edge.processes does."),
    ] = False,
    health: Annotated[
        str,
        typer.Option(
            "--health", envvar="GATEWAY_HEALTH", help="HOST:PORT of /livez, /readyz and /metrics of this process alone."
        ),
    ] = "",
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Run one edge: clients connect to it by WebSocket, SSE and HTTP. Run as many as you like.

    Edges that share a port need --health: what is asked at the port itself, any of them answers. What is asked below
    /APP/SERVICE goes to that service, where it has routes and services."APP.SERVICE".url is set.
    """
    found = gather(config)
    verifier = Verifier(found.settings)
    doors = Doors(reuse_port or found.settings.edge.processes > 1, address(health) if health else None)
    at = forwarded(found, service or ())
    reload = Reload(found, config)
    serve(lambda stop: _edge(reload, verifier, at, doors, stop), log_format, log_level, reload.asked)


class Doors(msgspec.Struct, frozen=True):
    """Where one edge among several answers."""

    #: Others listen at its port too.
    share: bool
    #: Where it answers probes, and nobody else does.
    own: tuple[str, int] | None


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


async def _edge(
    reload: Reload, verifier: Verifier, services: dict[str, str], doors: Doors, stop: asyncio.Event
) -> None:
    """Start: log, clients' doors, own door, which so is open once clients may come. End: the same, backwards."""
    found, waiting = reload.found, Waiting()
    at = found.settings.edge
    probe, ready = Probe(waiting), asyncio.Event()
    async with AsyncExitStack() as stack:
        opening = asyncio.create_task(open_log(found, stop, waiting), name="open the log")
        late = not (await asyncio.wait([opening], timeout=0.5))[0]
        if late and doors.own:
            await stack.enter_async_context(probed(probe, *doors.own))
        elif late and not doors.share:
            # Until the log server comes, somebody must answer the probes at our address.
            async with probed(probe, at.host, at.port):
                await asyncio.wait([opening])
        log = await opening
        if log is None:
            return
        stack.push_async_callback(log.close)
        letters = Letters(log, found.declared, found.settings.gateway.name, found.topic_map, found.decoders)
        edge = Edge(
            log,
            found.declared,
            verifier,
            anonymous=at.anonymous,
            rate=Rate(at.messages_per_second, at.message_burst),
            connections_per_user=at.connections_per_user,
            origins=at.allowed_origins,
            letters=letters,
            services=services,
            asyncapi=found.asyncapi,
            openapi=found.openapi(services),
        )
        reload.export(edge.metrics_of)

        async def apply(new: Configuration) -> str:
            found.topic_map.become(new.topic_map)
            return "{} subscriptions ended, {} come back".format(*edge.redeclare(new.declared, new.asyncapi))

        tls = (at.tls_cert, at.tls_key) if at.tls_cert else None
        proxies = at.proxies if at.behind_proxy else ()

        async def run() -> None:
            with naming(at.host, at.port):
                await edge.run(at.host, at.port, stop, ready, tls=tls, proxies=proxies, share=doors.share)

        async with reload.watching(log, apply), asyncio.TaskGroup() as group:
            group.create_task(run(), name="edge")
            await ready.wait()
            probe.become(edge.unready, edge.metrics, reload.standing)
            if doors.own and not late:
                await stack.enter_async_context(probed(probe, *doors.own))
