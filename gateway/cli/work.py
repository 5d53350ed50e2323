"""``gateway work``: one worker of one service."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from gateway.cli.bridge import Health
from gateway.cli.configuration import Config, Configuration, gather
from gateway.cli.process import LogFormat, LogLevel, Probe, Waiting, address, open_log, probed, serve
from gateway.errors import Misconfigured
from gateway.tables import nearest
from gateway.worker import Worker


def run(
    service: Annotated[str, typer.Argument(metavar="APP.SERVICE", help="Which service, such as ecommerce.inventory.")],
    name: Annotated[str, typer.Option("--name", help="This worker's own; by default a new one at each start.")] = "",
    config: Config = None,
    health: Health = "127.0.0.1:8082",
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Run one worker of a service. Run as many as you like: they share the partitions of its topics.

    SIGTERM: it takes nothing more, finishes what runs, and hands its partitions over.
    """
    found = gather(config)
    check(found, service)
    at = address(health)
    serve(lambda stop: _work(found, service, name, at, stop), log_format, log_level)


def check(found: Configuration, service: str) -> None:
    """Raise :class:`Misconfigured` where no application has ``service``."""
    if service not in found.services:
        known = nearest(service, sorted(found.services)) if found.services else "no application has services"
        raise Misconfigured(f"there is no service {service!r}", known)


async def _work(found: Configuration, group: str, name: str, at: tuple[str, int], stop: asyncio.Event) -> None:
    waiting = Waiting()
    probe = Probe(waiting)
    async with probed(probe, *at):
        log = await open_log(found, stop, waiting)
        if log is None:
            return
        try:
            worker = Worker(log, found.declared, group, found.services[group], name=name, guard=True)
            probe.become(worker.unready, worker.render)
            await worker.run(stop)
        finally:
            await log.close()
