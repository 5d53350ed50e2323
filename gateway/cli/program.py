"""The program ``gateway``: its commands, and how it ends: 0 done, 1 refused or failed, 2 not understood."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from gateway.cli.bridge import run as bridge
from gateway.cli.check import run as check
from gateway.cli.configuration import gather
from gateway.cli.conns import application as conns
from gateway.cli.dead import application as dead
from gateway.cli.device_credentials import application as device_credentials
from gateway.cli.doctor import run as doctor
from gateway.cli.edge import run as edge
from gateway.cli.explain import run as explain
from gateway.cli.groups import application as groups
from gateway.cli.log_credentials import run as log_credentials
from gateway.cli.metrics import application as metrics
from gateway.cli.migrate import run as migrate
from gateway.cli.pub import run as pub
from gateway.cli.reload import run as reload
from gateway.cli.revoke import run as revoke
from gateway.cli.sub import run as sub
from gateway.cli.tail import run as tail
from gateway.cli.token import run as token
from gateway.cli.topics import run as topics
from gateway.cli.up import run as up
from gateway.cli.work import run as work
from gateway.errors import GatewayError

application = typer.Typer(
    name="gateway",
    help=(
        "Events between devices, browsers and services.\n\n"
        "Settings come from gateway.toml (--config) and from GATEWAY_… variables, which win. "
        "Exit codes: 0 done, 1 refused or failed, 2 not understood."
    ),
    no_args_is_help=True,
    add_completion=False,
    # A traceback of ours is a bug and must be whole; a user's mistake never has one.
    pretty_exceptions_enable=False,
)
#: In the order in which the help lists them.
COMMANDS: dict[str, Callable[..., None]] = {
    "up": up,
    "edge": edge,
    "bridge": bridge,
    "work": work,
    "migrate": migrate,
    "pub": pub,
    "sub": sub,
    "tail": tail,
    "topics": topics,
    "token": token,
    "revoke": revoke,
    "explain": explain,
    "check": check,
    "reload": reload,
    "doctor": doctor,
    "log-credentials": log_credentials,
}
for name, command in COMMANDS.items():
    application.command(name)(command)
GROUPS = {
    "conns": conns,
    "groups": groups,
    "dead": dead,
    "device-credentials": device_credentials,
    "metrics": metrics,
}
for name, group in GROUPS.items():
    application.add_typer(group, name=name)


def _know_applications(words: list[str]) -> None:
    """Add the commands of applications where one may be meant: for our own, no application is imported twice."""
    if not words or words[0].startswith("-") or words[0] in (*COMMANDS, *GROUPS):
        return
    config = os.environ.get("GATEWAY_CONFIG")
    for app, commands in gather(Path(config) if config else None).commands.items():
        own = typer.Typer(help=f"Commands of the application {app}.", no_args_is_help=True)
        for command in commands:
            own.command(command.__name__.replace("_", "-"))(command)
        own.callback()(lambda: None)  # or a single command would not be asked for by its name
        application.add_typer(own, name=app)


def main() -> None:
    """Run the command of ``sys.argv``; print a :class:`GatewayError` as one message on standard error."""
    try:
        _know_applications(sys.argv[1:])
        application()
    except GatewayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
