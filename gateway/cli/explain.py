"""``gateway explain``: what would happen to a topic, without doing it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console

from gateway.cli.configuration import Config, Json, gather
from gateway.cli.rows import print_rows
from gateway.core.access import ANONYMOUS, KINDS, Principal
from gateway.core.explain import Explanation, explain


def run(
    topic: str,
    payload: Annotated[str | None, typer.Option(help="Would this be taken? Exit code 1 if not.")] = None,
    who: Annotated[str, typer.Option("--as", help="user:alice, device:pump-7, operator:me, ...")] = "anonymous",
    config: Config = None,
    json: Json = False,
) -> None:
    """Explain TOPIC, or a filter: who may write and read it, where it is kept, which declaration decides."""
    data = payload.encode(errors="surrogateescape") if payload is not None else None
    found = explain(gather(config).declared, topic, _principal(who), data)
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        _print(found, payload is not None)
    if found.payload_error:
        raise typer.Exit(1)


def _print(found: Explanation, asked: bool) -> None:
    rows = []
    for line in found.lines:
        write = f"{'yes' if line.may_write else 'no'} ({', '.join(line.write) or 'nobody'})"
        read = f"{'yes' if line.may_read else 'no'} ({', '.join(line.read) or 'nobody'})"
        rows.append((line.pattern, line.app, line.partition or "several", line.key or "open", write, read))
    print_rows(("declared as", "app", "partition", "key", "write", "read"), rows)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{found.principal} may{'' if found.may_write else ' not'} publish {found.topic}")
    console.print(f"{found.principal} may{'' if found.may_read else ' not'} subscribe to {found.topic}")
    back = "gets what was missed" if found.recoverable else "goes on with what comes then"
    console.print(f"a subscriber who was cut off {back}")
    if asked:
        console.print(f"the payload is {'refused: ' + found.payload_error if found.payload_error else 'taken'}")


def _principal(text: str) -> Principal:
    kind, _, name = text.partition(":")
    if text == "anonymous":
        return ANONYMOUS
    if kind not in KINDS or not name:
        raise typer.BadParameter(f"{text!r} is nobody; write anonymous or {', '.join(f'{k}:NAME' for k in KINDS)}")
    return Principal(kind, name)
