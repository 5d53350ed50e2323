"""``gateway groups``: how far each service is, partition by partition; pause, resume and replay one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, cast, get_args

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from gateway import logs
from gateway.adapters.log import GroupState, Log
from gateway.cli.configuration import Config, Configuration, Json, alone, gather
from gateway.cli.person import person
from gateway.cli.tail import open_to_read
from gateway.core.event import Partition
from gateway.errors import Misconfigured, NotAvailable
from gateway.service import Start
from gateway.tables import duration

_audit = logging.getLogger("gateway.audit")

Group = Annotated[str, typer.Argument(metavar="APP.SERVICE", help="Which service.")]
Change = Callable[[Log, Partition], Awaitable[str]]

application = typer.Typer(help="How far each service is; pause, resume and replay one.", invoke_without_command=True)


@application.callback()
def show(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """List groups and partitions: lag is entries behind, parked are events that wait for another try."""
    if not alone(context):
        return
    states = asyncio.run(_states(gather(config)))
    if json:
        for state in states:
            print(msgspec.json.encode(state).decode())
        return
    if not states:
        print("no service has begun; start one with `gateway work APP.SERVICE`")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("group", "partition", "lag", "parked", "cursor", "oldest", "holder", ""):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("lag", "parked", "cursor") else "left")
    for one in states:
        numbers = (str(one.lag), str(one.parked), str(one.cursor), str(one.oldest))
        table.add_row(one.group, one.partition, *numbers, one.holder or "nobody", "paused" if one.paused else "")
    Console(highlight=False, markup=False).print(table)


@application.command()
def pause(group: Group, config: Config = None) -> None:
    """Let a service rest: its workers finish what runs, and take nothing more. What comes waits in the log."""

    async def change(log: Log, partition: Partition) -> str:
        await log.groups.pause(partition, group)
        return "paused"

    _change(gather(config), group, change)


@application.command()
def resume(group: Group, config: Config = None) -> None:
    """Let a paused service go on where it was."""

    async def change(log: Log, partition: Partition) -> str:
        await log.groups.resume(partition, group)
        return "resumed"

    _change(gather(config), group, change)


@application.command()
def replay(
    group: Group,
    since: Annotated[str, typer.Option("--from", help="earliest, latest, an offset, or a duration such as 2h.")],
    config: Config = None,
) -> None:
    """Let a service handle again what it had: every event from there on, as far as the log still has it.

    Running workers lose their leases and take them again, so events that run meanwhile run twice.
    """

    async def change(log: Log, partition: Partition) -> str:
        to = await place(log, partition, since)
        return f"goes on after {await log.groups.seek(partition, group, to, void=True)}"

    _change(gather(config), group, change)


@application.command()
def forget(
    group: Annotated[str, typer.Argument(metavar="APP.SERVICE.NAME", help="A group of `gateway work --as NAME`.")],
    config: Config = None,
) -> None:
    """Forget a group that is not needed any more: trimming then waits for it no longer."""
    found = gather(config)
    if group in found.services:
        raise Misconfigured(f"{group!r} is a service", "it would begin anew; remove it from its application first")

    async def change(log: Log, partition: Partition) -> str:
        await log.groups.forget(partition, group)
        return "is forgotten"

    _change(found, group, change)


async def place(log: Log, partition: Partition, since: str) -> Start | int:
    """Return where ``since`` is in ``partition``: a word, an offset, or so long ago."""
    if since in get_args(Start):
        return cast("Start", since)
    if since.isdigit():
        return int(since)
    return await log.groups.offset_at(partition, int((time.time() - duration(since)) * 1000))


async def _states(found: Configuration) -> list[GroupState]:
    log = await open_to_read(found)
    try:
        return await log.groups.states(log.partitions())
    finally:
        await log.close()


def _change(found: Configuration, group: str, change: Change) -> None:
    logs.configure()

    async def all_of_it() -> None:
        log = await open_to_read(found)
        try:
            begun = await log.groups.begun(log.partitions(), group)
            if not begun:
                raise NotAvailable(f"no group {group!r} has begun", "see: gateway groups")
            for partition in begun:
                outcome = await change(log, partition)
                _audit.info("%s: %s in %s %s", person(), group, partition, outcome)
                print(f"{group} in {partition} {outcome}")
        finally:
            await log.close()

    asyncio.run(all_of_it())
