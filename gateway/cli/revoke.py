"""``gateway revoke``: what was given is taken back, on every edge and at once."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Literal

import msgspec
import typer

from gateway import logs
from gateway.cli.configuration import Config, Configuration, Json, gather
from gateway.cli.person import person
from gateway.cli.rows import print_rows
from gateway.cli.tail import open_to_read
from gateway.core.access import Revocation
from gateway.edge.revocations import revoke
from gateway.tables import duration


def run(
    sub: Annotated[str, typer.Option(help="Every token of user:alice made until now; device:…, operator:…")] = "",
    jti: Annotated[str, typer.Option(help="The one token with this jti.")] = "",
    key: Annotated[str, typer.Option(help="Whatever this key of the key ring, or API key, vouches for.")] = "",
    life: Annotated[
        str, typer.Option("--for", help="As long as the tokens may last, such as 12h; by default as long as any may.")
    ] = "366d",
    listed: Annotated[bool, typer.Option("--list", help="Show what is in force.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Close every connection that came in by it, and refuse it from now on. For operators of this machine."""
    try:
        seconds = int(duration(life))
    except ValueError as error:
        raise typer.BadParameter(f"{life!r} {error}", param_hint="--for") from None
    named: list[tuple[Literal["sub", "jti", "key"], str]] = []
    if sub:
        named.append(("sub", sub))
    if jti:
        named.append(("jti", jti))
    if key:
        named.append(("key", key))
    if len(named) + listed != 1:
        raise typer.BadParameter("give one of --sub, --jti, --key and --list")
    found = gather(config)
    logs.configure()
    if listed:
        _show(asyncio.run(_listed(found)), json)
    else:
        _show([asyncio.run(_revoked(found, *named[0], seconds))], json)


async def _revoked(found: Configuration, what: Literal["sub", "jti", "key"], name: str, seconds: int) -> Revocation:
    log = await open_to_read(found)
    try:
        return await revoke(log.control, what, name, seconds, person())
    finally:
        await log.close()


async def _listed(found: Configuration) -> list[Revocation]:
    log = await open_to_read(found)
    try:
        now = time.time()
        return sorted((one for one in await log.control.revoked() if one.until > now), key=lambda one: one.at)
    finally:
        await log.close()


def _show(revocations: list[Revocation], json: bool) -> None:
    if json:
        for one in revocations:
            print(msgspec.json.encode(one).decode())
    elif revocations:
        rows = [(f"{one.what} {one.name}", _date(one.at), _date(one.until)) for one in revocations]
        print_rows(("revoked", "from", "until"), rows)
    else:
        print("nothing is revoked")


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
