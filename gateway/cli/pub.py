"""``gateway pub``: publish one event over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import httpx
import msgspec
import typer

from gateway import limits
from gateway.adapters.identity import new_id
from gateway.cli.configuration import Config, Json
from gateway.cli.target import Answer, RefusedByEdge, Target, Token, Url, find
from gateway.errors import TooLarge


class Stored(msgspec.Struct, frozen=True):
    """What the edge answers."""

    id: str
    topic: str
    epoch: str
    offset: int
    duplicate: bool
    durability: str


def run(
    topic: str,
    payload: Annotated[str | None, typer.Argument(help="The payload; - reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the payload from a file.")] = None,
    id: Annotated[str, typer.Option("--id", help="The event's id; the same again is the same event.")] = "",
    type: Annotated[str, typer.Option("--type", help="Content type of the payload.")] = "",
    url: Url = "",
    token: Token = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """Publish PAYLOAD under TOPIC; print its id, where it stands in the log, and what that promises."""
    data = _payload(payload, file)
    target = find(url, token, config)
    text, stored = post(target, topic, data, id or new_id(), type)
    if json:
        print(text)
        return
    at = f"{stored.epoch}-{stored.offset}" if stored.epoch else "not kept"
    again = "  (it was there before)" if stored.duplicate else ""
    print(f"{stored.id}  {stored.topic}  at {at}  durability {stored.durability}{again}")


def post(target: Target, topic: str, data: bytes, id: str, type: str = "") -> tuple[str, Stored]:
    """Publish; return the edge's answer as text and as value. Raises :class:`RefusedByEdge`, :class:`Unavailable`."""
    headers = {"event-id": id}
    headers |= {"authorization": f"Bearer {target.token}"} if target.token else {}
    headers |= {"content-type": type} if type else {}
    try:
        answer = httpx.post(
            f"{target.url}/topics/{quote(topic)}",
            content=data,
            headers=headers,
            timeout=limits.PUBLISH_WITHIN + 5,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise target.away(error) from None
    if answer.is_error:
        raise RefusedByEdge(detail_of(answer.content, answer.status_code))
    return answer.text, msgspec.json.decode(answer.content, type=Stored)


def detail_of(body: bytes, status: int) -> str:
    """Return what a problem+json says, or the status where it is none."""
    try:
        return msgspec.json.decode(body, type=Answer).detail or f"the edge answered {status}"
    except msgspec.DecodeError:
        return f"the edge answered {status}, and not in its own words; is it a topic gateway?"


def _payload(payload: str | None, file: Path | None) -> bytes:
    if (payload is None) == (file is None):
        raise typer.BadParameter("give either PAYLOAD or --file", param_hint="PAYLOAD")
    most = limits.PAYLOAD_BYTES + 1
    try:
        if file is not None:
            with file.open("rb") as source:
                data = source.read(most)
        else:
            data = sys.stdin.buffer.read(most) if payload == "-" else (payload or "").encode(errors="surrogateescape")
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--file") from None
    if len(data) >= most:
        raise TooLarge(f"the payload has more than {limits.PAYLOAD_BYTES} bytes", "send less")
    return data
