"""``gateway token``: a token for development, or the API key of a server."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Annotated, Literal

import msgspec
import typer

from gateway import logs
from gateway.adapters.tokens import add_api_key, drop_api_keys, issue, secret
from gateway.cli.configuration import Config, Json, gather
from gateway.cli.person import person
from gateway.core.access import Principal
from gateway.core.topic import check_filter
from gateway.settings import Settings
from gateway.tables import duration

_audit = logging.getLogger("gateway.audit")


def run(
    role: Annotated[Literal["user", "viewer", "operator"], typer.Option(help="What the token's bearer is.")] = "user",
    sub: Annotated[str, typer.Option(help="The bearer's name.")] = "me",
    channel: Annotated[
        str, typer.Option(metavar="TOPIC", help="For one subscription of the bearer, not to connect with.")
    ] = "",
    life: Annotated[str, typer.Option("--for", help="How long it lasts, such as 15m, 12h or 30d.")] = "12h",
    api_key: Annotated[
        str,
        typer.Option(metavar="NAME", help="Instead: a new API key of the server service:NAME. Only its hash is kept."),
    ] = "",
    drop_api_key: Annotated[
        str, typer.Option(metavar="NAME", help="Instead: forget every API key of service:NAME.")
    ] = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """Print a token, signed with the secret of the settings (made on first use)."""
    try:
        seconds = int(duration(life))
    except ValueError as error:
        raise typer.BadParameter(f"{life!r} {error}", param_hint="--for") from None
    settings = gather(config).settings
    if channel:
        check_filter(channel)
    if api_key or drop_api_key:
        _api_key(settings, api_key, drop_api_key, json)
        return
    now, jti = time.time(), str(uuid.uuid4())
    ours, who = settings.tokens, Principal(role, sub)
    names = {"audience": ours.audience, "issuer": ours.issuer, "jti": jti, "channel": channel}
    made = issue(secret(settings), who, seconds, now, **names)
    if json:
        found = {"token": made, "sub": sub, "role": role, "exp": int(now) + seconds, "jti": jti}
        found |= {"channel": channel} if channel else {}
        print(msgspec.json.encode(found).decode())
    else:
        print(made)


def _api_key(settings: Settings, add: str, drop: str, json: bool) -> None:
    if add and drop:
        raise typer.BadParameter("one at a time", param_hint="--api-key, --drop-api-key")
    logs.configure()
    if add:
        key = add_api_key(settings.api_keys_file, add)
        _audit.info("%s: made an API key of service:%s", person(), add)
        print(msgspec.json.encode({"api_key": key, "principal": f"service:{add}"}).decode() if json else key)
    else:
        dropped = drop_api_keys(settings.api_keys_file, drop)
        _audit.warning("%s: dropped %d API keys of service:%s", person(), dropped, drop)
        print(msgspec.json.encode({"dropped": dropped}).decode() if json else f"{dropped} dropped")
