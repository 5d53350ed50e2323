"""``gateway token``: a token for development."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
import typer

from gateway.adapters.tokens import issue, secret
from gateway.cli.configuration import Config, Json, gather
from gateway.core.access import Principal
from gateway.tables import duration


def run(
    role: Annotated[Literal["user", "operator"], typer.Option(help="What the token's bearer is.")] = "user",
    sub: Annotated[str, typer.Option(help="The bearer's name.")] = "me",
    life: Annotated[str, typer.Option("--for", help="How long it lasts, such as 15m, 12h or 30d.")] = "12h",
    config: Config = None,
    json: Json = False,
) -> None:
    """Print a token, signed with the secret of the settings (made on first use)."""
    try:
        seconds = int(duration(life))
    except ValueError as error:
        raise typer.BadParameter(f"{life!r} {error}", param_hint="--for") from None
    settings, now = gather(config).settings, time.time()
    tokens = settings.tokens
    made = issue(secret(settings), Principal(role, sub), seconds, now, audience=tokens.audience, issuer=tokens.issuer)
    if json:
        print(msgspec.json.encode({"token": made, "sub": sub, "role": role, "exp": int(now) + seconds}).decode())
    else:
        print(made)
