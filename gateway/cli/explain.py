"""``gateway explain``: what would happen to a topic, without doing it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from gateway.adapters.tokens import Verifier
from gateway.app import participants
from gateway.cli.configuration import Config, Json, gather
from gateway.cli.rows import print_rows
from gateway.core.access import ANONYMOUS, KINDS, Grant, Principal
from gateway.core.declared import Topic
from gateway.core.explain import Explanation, Line, explain
from gateway.core.topic import is_filter
from gateway.settings import Settings


def run(
    topic: str,
    payload: Annotated[str | None, typer.Option(help="Would this be taken? Exit code 1 if not.")] = None,
    who: Annotated[str, typer.Option("--as", help="user:alice, device:pump-7, operator:me, ...")] = "anonymous",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="As the bearer of this token; - is standard input, never an argument."),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Explain TOPIC, or a filter: who may write and read it, where it is kept, who gets it, what decides."""
    data = payload.encode(errors="surrogateescape") if payload is not None else None
    configured = gather(config)
    grant = None if token_file is None else asyncio.run(_bearer(configured.settings, _read(token_file)))
    found = explain(
        configured.declared,
        topic,
        grant.principal if grant is not None else _principal(who),
        data,
        participants=participants(configured.services),
        rules=configured.topic_map.rules,
    )
    if grant is not None and not json:
        ends = "never ends" if grant.expires is None else f"ends {time.ctime(grant.expires)}"
        print(f"{grant.principal}, says the key {grant.key}; it {ends}")
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        _print(found, payload is not None)
    if found.payload_error:
        raise typer.Exit(1)


def _read(file: Path) -> str:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError):
        raise typer.BadParameter(f"{file} cannot be read", param_hint="--token-file") from None
    return text.strip()


async def _bearer(settings: Settings, token: str) -> Grant:
    verifier = Verifier(settings)
    for keys in verifier.ring.sets:
        await keys.fetch()
    return verifier.verify(token, time.time())


def _print(found: Explanation, asked: bool) -> None:
    rows = []
    for line in found.lines:
        write = f"{'yes' if line.may_write else 'no'} ({granted(line.write, line.deny_write)})"
        read = f"{'yes' if line.may_read else 'no'} ({granted(line.read, line.deny_read)})"
        takes = f"{line.payload}, a {line.schema}" if line.schema else line.payload
        place = (line.partition or "several", line.key or "open")
        rows.append((line.pattern, line.app, *place, takes, write, read, notes(line)))
    print_rows(("declared as", "app", "partition", "key", "payload", "write", "read", "notes"), rows)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for does, refused in (("publish", found.write_refused), ("subscribe to", found.read_refused)):
        said = f"may not {does} {found.topic}: {refused}" if refused else f"may {does} {found.topic}"
        console.print(f"{found.principal} {said}")
    back = "gets what was missed" if found.recoverable else "goes on with what comes then"
    console.print(f"a subscriber who was cut off {back}")
    if found.lines[0].presence and not is_filter(found.topic):
        console.print(f"{found.principal} may{' not' if found.read_refused else ''} ask who is there")
    for source in found.mapped:
        console.print(f"devices publish it as {source}, too")
    for one in found.receivers:
        taken = f", but not this payload, a dead letter there: {one.payload_error}" if one.payload_error else ""
        console.print(f"{one.group} handles {one.pattern}{taken}")
    if not found.receivers:
        console.print("no service handles it")
    if asked:
        console.print(f"the payload is {'refused: ' + found.payload_error if found.payload_error else 'taken'}")


def granted(grants: Sequence[str], denials: Sequence[str]) -> str:
    """Return who may, and who may not, in a few words."""
    said = ", ".join(grants) or "nobody"
    return f"{said}; not {', '.join(denials)}" if denials else said


def notes(declared: Topic | Line) -> str:
    """Return what else a declaration says, in a few words."""
    said = {
        f"MQTT {declared.mqtt}": bool(declared.mqtt),
        "command": declared.kind == "command",
        "last value kept": declared.retain,
        "live only": declared.ephemeral,
        "no history": not declared.history,
        "schema": isinstance(declared, Topic) and declared.schema is not None,
    }
    return ", ".join(note for note, true in said.items() if true)


def _principal(text: str) -> Principal:
    kind, _, name = text.partition(":")
    if text == "anonymous":
        return ANONYMOUS
    if kind not in KINDS or not name:
        raise typer.BadParameter(f"{text!r} is nobody; write anonymous or {', '.join(f'{k}:NAME' for k in KINDS)}")
    return Principal(kind, name)
