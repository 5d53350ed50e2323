"""``gateway conns``: who is connected, on every edge; and sending them away."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway import limits
from gateway.cli.configuration import Config, Json, alone
from gateway.cli.rows import print_rows
from gateway.cli.shown import printable
from gateway.cli.target import RefusedByEdge, Target, Url, find, read
from gateway.core.connected import Connected, Connection
from gateway.edge.presence import principal_of, user_of
from gateway.errors import NotAvailable

TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="An operator's token; else of GATEWAY_TOKEN, else the one of `gateway up`."),
]
User = Annotated[str, typer.Option("--user", help="Of this one alone: alice, device:pump-7, anonymous.")]


class _Error(msgspec.Struct):
    message: str


class _Done(msgspec.Struct):
    """What the server API answers."""

    error: _Error | None = None


application = typer.Typer(help="Who is connected, on every edge; send them away.", invoke_without_command=True)


@application.callback()
def show(
    context: typer.Context,
    user: User = "",
    topic: Annotated[str, typer.Option("--topic", help="Who hears this topic, or has this very filter.")] = "",
    slow: Annotated[bool, typer.Option("--slow", help="For whom something waits.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=limits.CONNECTIONS_MOST, help="At most so many.")
    ] = limits.CONNECTIONS,
    url: Url = "",
    token_file: TokenFile = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """List connections, most bytes waiting first, then the oldest."""
    if not alone(context):
        return
    edge = find(url, token_file, config, "operator")
    asked = {"user": user, "topic": topic, "slow": str(slow).lower(), "limit": str(limit)}
    found = _connected(edge, asked)
    if json:
        for one in found.connections:
            print(msgspec.json.encode(one).decode())
    elif found.connections:
        headings = ("client", "user", "edge", "speaks", "sdk", "since", "waiting", "ping", "watches")
        print_rows(headings, [_row(one) for one in found.connections])
    if found.left_out:
        print(f"{found.left_out} more are not shown; see --limit", file=sys.stderr)
    _tell_missing(found)


@application.command()
def kick(
    client: Annotated[str, typer.Argument(metavar="[CLIENT]", help="As `gateway conns` shows it.")] = "",
    user: User = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = "",
    token_file: TokenFile = None,
    config: Config = None,
) -> None:
    """Close a connection, or all of a user, on every edge. An SDK does not come back by itself; a person may.

    To keep somebody out: gateway revoke.
    """
    if bool(client) == bool(user):
        raise typer.BadParameter("give either CLIENT or --user")
    if user == "anonymous":
        raise typer.BadParameter("anonymous is whoever has no token: name the CLIENT", param_hint="--user")
    edge = find(url, token_file, config, "operator")
    found = _connected(edge, {"user": user, "client": client, "limit": "1"})
    _tell_missing(found)
    count = len(found.connections) + found.left_out
    if client and not count and found.missing:
        raise NotAvailable(f"no edge that answered has {printable(client)}", "try again when all of them answer")
    if not count and not found.missing:
        raise NotAvailable(f"nobody is connected as {printable(client or user)}", "see: gateway conns")
    user = found.connections[0].user if client else user
    whom = f"{client or f'{count} connections'} of {user}"
    if sys.stdin.isatty() and not yes:
        typer.confirm(f"Close {printable(whom)}?", abort=True)
    name = "" if user == "anonymous" else user_of(principal_of(user))
    gone = {"user": name, "client": client}
    done = read(edge.ask("POST", "/api/disconnect", limits.SURVEY_WITHIN + 10, json=gone), _Done)
    if done.error is not None:
        raise RefusedByEdge(done.error.message)
    print(f"told every edge to close {printable(whom)}")


def _connected(edge: Target, asked: dict[str, str]) -> Connected:
    given = {name: value for name, value in asked.items() if value}
    return read(edge.ask("GET", "/connections", limits.SURVEY_WITHIN + 10, params=given), Connected)


def _tell_missing(found: Connected) -> None:
    """Say so where the clients of some edges are not known."""
    if found.missing:
        said, of = len(found.edges), len(found.edges) + len(found.missing)
        names = printable(", ".join(found.missing))
        print(f"edges answered {said} of {of}: nothing is known of {names}", file=sys.stderr)


def _row(one: Connection) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.since / 1000))
    more = one.subscriptions - len(one.filters)
    watches = printable(", ".join(one.filters)) + (f" and {more} more" if more else "")
    ping = "" if one.round_trip is None else f"{one.round_trip} ms"
    speaks, sdk, user = f"{one.transport} {one.codec}", printable(one.sdk), printable(one.user)
    return (one.client, user, one.edge, speaks, sdk, since, str(one.waiting), ping, watches)
