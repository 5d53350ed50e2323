"""``gateway pub``: publish one event over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import msgspec
import typer

from gateway import limits
from gateway.adapters.identity import new_id
from gateway.cli.configuration import Config, Json, gather
from gateway.cli.target import Answer, RefusedByEdge, Target, TokenFile, Url, detail_of, find, read
from gateway.core.payload import check_json
from gateway.errors import BadPayload, NotDeclared, Refused, TooLarge

_UNREAD = "it is declared here, but the edge that runs has not read your change: restart it"


class UnknownToEdge(RefusedByEdge):
    """The edge knows no such topic."""

    code = NotDeclared.code


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
    id: Annotated[
        str,
        typer.Option(
            "--id",
            help="The event's id. Watchers and services drop a repeat of an id; the log keeps both; "
            "only --key is answered once.",
        ),
    ] = "",
    key: Annotated[
        str, typer.Option("--key", help="Idempotency key: the same again stores nothing, and hears the first answer.")
    ] = "",
    type: Annotated[str, typer.Option("--type", help="Content type; by default JSON or text where it is that.")] = "",
    url: Url = "",
    token_file: TokenFile = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Publish PAYLOAD under TOPIC; print its id, where it stands in the log, and what that promises."""
    data = _payload(payload, file)
    target = find(url, token_file, config)
    try:
        text, stored = post(target, topic, data, id or new_id(), type or _type(data), key)
    except UnknownToEdge as error:
        raise (error if not _declared(topic, config) else UnknownToEdge(error.detail, _UNREAD)) from None
    if json:
        print(text)
        return
    at = f"{stored.epoch}-{stored.offset}" if stored.epoch else "not kept"
    again = "  (it was there before)" if stored.duplicate else ""
    print(f"{stored.id}  {stored.topic}  at {at}  durability {stored.durability}{again}")


def post(target: Target, topic: str, data: bytes, id: str, type: str = "", key: str = "") -> tuple[str, Stored]:
    """Publish; return the edge's answer as text and as value.

    Raises :class:`Refused`, :class:`RefusedByEdge`, :class:`Unavailable`.
    """
    headers = {"event-id": id}
    headers |= {"content-type": type} if type else {}
    headers |= {"idempotency-key": key} if key else {}
    answer = target.ask("POST", f"/topics/{quote(topic)}", limits.PUBLISH_WITHIN + 5, headers, content=data)
    if answer.is_error and _unknown(answer.content):
        raise UnknownToEdge(detail_of(answer))
    return answer.text, read(answer, Stored)


def _unknown(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body, type=Answer).type.endswith(f":{NotDeclared.code}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _declared(topic: str, config: Path | None) -> bool:
    try:
        gather(config).declared.find(topic)
    except Refused:
        return False
    return True


def _type(data: bytes) -> str:
    """Return ``text/plain`` for text that is no JSON; nothing where the topic says all, or nobody can."""
    try:
        check_json(data)
    except BadPayload:
        pass
    else:
        return ""
    try:
        data.decode()
    except UnicodeDecodeError:
        return ""
    return "text/plain"


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
