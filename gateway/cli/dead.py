"""``gateway dead``: events that were given up: list, read, replay, edit and drop them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from gateway import logs
from gateway.adapters.log import DeadLetter
from gateway.cli.configuration import Config, Json, gather
from gateway.cli.person import person
from gateway.cli.shown import printable, shown
from gateway.cli.tail import open_to_read
from gateway.errors import Refused
from gateway.letters import Address, Found, Letters, Progress, Which, address

T = TypeVar("T")

Where = Annotated[list[str] | None, typer.Argument(metavar="[PARTITION/ID]...", help="As `gateway dead ls` shows it.")]
One = Annotated[str, typer.Argument(metavar="PARTITION/ID", help="As `gateway dead ls` shows it.")]
Group = Annotated[str, typer.Option("--group", help="Of this service alone, such as ecommerce.inventory.")]
Reason = Annotated[str, typer.Option("--reason", help="Given up for this alone, such as gave_up or schema.")]
Topic = Annotated[str, typer.Option("--topic", help="Of topics that this filter lets through.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]
Rate = Annotated[float, typer.Option("--rate", min=0.0, help="At most so many a second; 0 is as fast as it goes.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
All = Annotated[bool, typer.Option("--all", help="Every letter, where nothing else says which.")]

application = typer.Typer(
    help="Events that were given up: list, read, replay, edit and drop them.", no_args_is_help=True
)


@application.command()
def ls(
    group: Group = "",
    reason: Reason = "",
    topic: Topic = "",
    limit: Limit = 100,
    config: Config = None,
    json: Json = False,
) -> None:
    """List dead letters, each partition's oldest first."""
    for at, letter in _run(config, lambda letters: _found(letters, None, Which(group, reason, topic), limit)):
        print(_json(at, letter) if json else _line(at, letter))


@application.command()
def show(at: One, config: Config = None, json: Json = False) -> None:
    """Show one letter whole: payload, error and traceback."""
    place = address(at)
    letter = _run(config, lambda letters: letters.read(place))
    if json:
        print(_json(place, letter))
        return
    print(_line(place, letter))
    print(
        f"event      {letter.id} at {letter.at or 'no place in the log'}, by {printable(letter.producer or 'unknown')}"
    )
    print(f"attempts   {letter.attempts}, worker {letter.worker or 'none'}")
    print(f"error      {printable(letter.error)}")
    print(f"payload    {shown_data(letter)}")
    for line in letter.traceback.splitlines():
        print(f"  {printable(line)}")


@application.command()
def replay(
    where: Where = None,
    group: Group = "",
    reason: Reason = "",
    topic: Topic = "",
    limit: Limit = 1_000,
    rate: Rate = 0.0,
    dry_run: DryRun = False,
    every: All = False,
    config: Config = None,
) -> None:
    """Give letters back to the service that gave them up, and to no other, with their original ids.

    A device's message that never reached the log (its service is shown as -) is published, if it may be now.
    """
    which = Which(group, reason, topic)
    _many("replayed", where, which, limit, dry_run, every, config, lambda ls, at: ls.replay(person(), at, rate))


@application.command()
def drop(
    where: Where = None,
    group: Group = "",
    reason: Reason = "",
    topic: Topic = "",
    limit: Limit = 1_000,
    rate: Rate = 0.0,
    dry_run: DryRun = False,
    every: All = False,
    config: Config = None,
) -> None:
    """Forget letters for good."""
    which = Which(group, reason, topic)
    _many("dropped", where, which, limit, dry_run, every, config, lambda ls, at: ls.drop(person(), at, rate))


@application.command()
def edit(
    at: One,
    data: Annotated[str, typer.Option("--data", help="The new payload; @FILE reads it from there.")],
    config: Config = None,
) -> None:
    """Replay one letter with another payload, which its topic must allow."""
    logs.configure()
    place = address(at)
    payload = Path(data[1:]).read_bytes() if data.startswith("@") else data.encode()
    _run(config, lambda letters: letters.edit(person(), place, payload), writes=True)
    print(f"replayed {place} with another payload")


def _many(
    verb: str,
    where: Sequence[str] | None,
    which: Which,
    limit: int,
    dry_run: bool,
    every: bool,
    config: Path | None,
    change: Callable[[Letters, list[Address]], AsyncIterator[Progress]],
) -> None:
    if not where and which == Which() and not every:
        raise Refused("nothing says which letters", "name some, or set --group, --reason, --topic or --all")
    logs.configure()

    async def work(letters: Letters) -> None:
        found = await _found(letters, where, which, limit)
        if dry_run:
            for at, letter in found:
                print(_line(at, letter))
            print(f"{len(found)} would be {verb}")
            return
        progress = Progress(0, 0)
        async for progress in change(letters, [at for at, _ in found]):
            _told(progress)
        print(f"{progress.done} {verb}, {progress.left_out} left out")
        if progress.why:
            print(progress.why)

    _run(config, work, writes=not dry_run)


async def _found(letters: Letters, where: Sequence[str] | None, which: Which, limit: int) -> list[Found]:
    if where:
        places = [address(text) for text in where]
        return [(at, await letters.read(at)) for at in places]
    return [found async for found in letters.find(which, limit)]


def _run(config: Path | None, work: Callable[[Letters], Awaitable[T]], *, writes: bool = False) -> T:
    found = gather(config)

    async def run() -> T:
        log = await open_to_read(found)
        letters = Letters(log, found.declared, found.settings.gateway.name, found.topic_map, found.decoders)
        writing = asyncio.create_task(log.run(), name="log") if writes else None
        try:
            return await work(letters)
        finally:
            await letters.end()
            if writing is not None:
                writing.cancel()
                await asyncio.wait([writing])
            await log.close()

    return asyncio.run(run())


def _told(progress: Progress) -> None:
    if sys.stderr.isatty():
        print(f"\r{progress.done} done", end="", file=sys.stderr, flush=True)


def shown_data(letter: DeadLetter) -> str:
    try:
        return printable(letter.data.decode())
    except UnicodeDecodeError:
        return f"{len(letter.data)} bytes: {letter.data[:32].hex(' ')}"


def _line(at: Address, letter: DeadLetter) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(letter.ts / 1000))
    return f"{at}  {when}  {letter.group or '-'}  {letter.reason}  {printable(letter.topic)}  {printable(letter.error)}"


def _json(at: Address, letter: DeadLetter) -> str:
    row = {name: getattr(letter, name) for name in letter.__struct_fields__ if name not in ("data", "meta")}
    payload = shown(letter.topic, letter.id, letter.meta.ts, letter.data, letter.meta.type or "text/plain")
    return msgspec.json.encode({"letter": str(at), **row, "payload": payload}).decode()
