"""``gateway work``: one worker of one service."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import msgspec
import typer

from gateway.adapters import http_service
from gateway.adapters.http_asking import configured
from gateway.adapters.http_service import Hosted, application
from gateway.adapters.tokens import Verifier
from gateway.cli.configuration import Config, Configuration, gather, known_service
from gateway.cli.groups import place
from gateway.cli.migrate import open_store
from gateway.cli.process import LogFormat, LogLevel, Probe, Waiting, address, open_log, probed, serve
from gateway.cli.reloading import Reload
from gateway.errors import Misconfigured
from gateway.worker import Worker

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")

Listen = Annotated[
    str,
    typer.Option(
        "--health", envvar="GATEWAY_HEALTH", help="HOST:PORT of /livez, /readyz, /metrics and the service's own routes."
    ),
]


def run(
    service: Annotated[str, typer.Argument(metavar="APP.SERVICE", help="Which service, such as ecommerce.inventory.")],
    name: Annotated[
        str,
        typer.Option(
            "--name",
            help="This worker's own, of no two at a time: killed and started again under it, it goes on at once, not"
            " when its lease is over. By default a new one at each start.",
        ),
    ] = "",
    again: Annotated[
        str,
        typer.Option("--as", metavar="NAME", help="Handle once more what is kept, as the group APP.SERVICE.NAME."),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--from",
            show_default="earliest",
            help="With --as: earliest, latest, an offset, or a duration such as 2h.",
        ),
    ] = "",
    config: Config = None,
    health: Listen = "127.0.0.1:8082",
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Run one worker of a service. Run as many as you like: they share the partitions of its topics.

    SIGTERM: it takes nothing more, finishes what runs, and hands its partitions over.

    With --as it is a group of its own, with an inbox of its own: every effect happens again, beside the service and
    in its database, for tables that were emptied to be filled anew. What it emits has the ids that it had, so others
    drop it. `gateway groups` tells how far it is, `gateway groups forget` removes it.
    """
    found = gather(config)
    http_service.check(known_service(found, service), service)
    at = address(health)
    if again and not _NAME.fullmatch(again):
        raise Misconfigured(f"--as {again!r} is no name", "use a-z, 0-9, - and _, at most 32, a letter first")
    beside = Beside(f"{service}.{again}", since or "earliest") if again else None
    if since and not again:
        raise typer.BadParameter(
            "it is for --as; `gateway groups replay` moves the service itself", param_hint="--from"
        )
    reload = Reload(found, config)
    serve(lambda stop: _work(reload, service, name, at, stop, beside), log_format, log_level, reload.asked)


class Beside(msgspec.Struct, frozen=True):
    """A group that handles again what a service had."""

    group: str
    since: str


async def _work(
    reload: Reload, group: str, name: str, at: tuple[str, int], stop: asyncio.Event, beside: Beside | None
) -> None:
    """Start: address, log, database, routes, handlers. End: routes, handlers, database, log, address."""
    found, waiting = reload.found, Waiting()
    service = found.services[group]
    probe, hosted = Probe(waiting), Hosted(group)
    # Before the address is open: who has no routes needs no secret, and who has some needs a good one.
    verifier = Verifier(found.settings) if service.routes else None
    asking = configured(group, service.asks, found.settings.gateway.origin, found.settings.key_file(group))
    async with probed(probe, *at, hosted if service.routes else None):
        log = await open_log(found, stop, waiting)
        if log is None:
            return
        store = await open_store(found, group, stop, waiting)
        try:
            if store is None and service.database is not None:
                return  # it was told to end before its database came
            strays = f"{found.settings.gateway.name}.0"
            worker = Worker(
                log, found.declared, group, service, name=name, guard=True, store=store, strays=strays, asking=asking
            )
            if beside is not None:
                worker.stand_beside(beside.group, lambda partition: place(log, partition, beside.since))
            if verifier is not None:
                state = {"service": worker.routed}
                hosted.open(application(service, group, verifier, state), worker.metrics.answered)
                worker.metrics.of_service("gateway_routes_running", "Requests under way", lambda: hosted.running)
            reload.export(worker.metrics)
            probe.become(lambda: hosted.unready() + worker.unready(), worker.render, reload.standing)
            handlers_stop = asyncio.Event()

            async def apply(new: Configuration) -> str:
                worker.redeclare(new.declared)
                return ""

            async with reload.watching(log, apply), asyncio.TaskGroup() as running:
                running.create_task(worker.run(handlers_stop), name="worker")
                keys = running.create_task(verifier.run(), name="keys") if verifier is not None else None
                await stop.wait()
                await hosted.drain()
                if keys is not None:
                    keys.cancel()
                handlers_stop.set()
        finally:
            if store is not None:
                await store.close()
            await log.close()
