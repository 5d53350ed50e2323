"""What goes on in a room: history, who watches, tokens to watch it, cursors, typing."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from starlette.requests import Request

from chat import limits, rooms
from chat.asked import BadName, NoRoom, asker, milliseconds, place_of
from chat.events import Entry, Notice, Seq, Typing
from chat.keys import public_jwk, subscription_token
from chat.rules import read_to
from chat.tables import MEMBERS
from chat.topics import WATCHED, watched
from gateway.sql import reading, transaction
from gateway.web import Listing, Page, Refused, ask, operation, publish


class Past(Listing, frozen=True):
    """``after``: a number; ``back``: what is before it, the newest first, from the end by default."""

    back: bool = False


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    channel: Annotated[str, msgspec.Meta(max_length=255)]


class Token(msgspec.Struct, frozen=True):
    token: str
    expires_in: int


class Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seq: Seq


class Cursor(msgspec.Struct, frozen=True):
    read_seq: int
    unread: int


class Present(msgspec.Struct, frozen=True):
    #: Each once, however many devices.
    users: list[str]


class _Client(msgspec.Struct, frozen=True):
    user: str


class _There(msgspec.Struct, frozen=True):
    #: Of the server API: connection → who it is.
    presence: dict[str, _Client]


class KeySet(msgspec.Struct, frozen=True):
    keys: list[dict[str, str]]


@operation("Who watches a room now.", grants=["user"], errors=[NoRoom, BadName])
async def presence(request: Request) -> Present:
    async with reading(request) as db:
        place = await place_of(db, request, "see")
    there = await ask(request, "POST", "/api/presence", {"channel": watched(place.id)}, returns=_There)
    return Present(sorted({client.user for client in there.presence.values()}))


@operation("What happened, by number, in both directions.", grants=["user"], errors=[NoRoom, BadName])
async def history(request: Request, query: Past) -> Page[Entry]:
    if query.after and not (query.after.isascii() and query.after.isdecimal() and len(query.after) < 17):
        raise Refused(f"after={query.after[:20]!r} is no number", "use the seq of an entry")
    after = int(query.after) if query.after else None
    async with reading(request) as db:
        place = await place_of(db, request, "see")
        found = await rooms.history(db, place.id, after, query.limit + 1, back=query.back)
    return Page.of(found, query, lambda entry: str(entry.seq))


@operation("A token to watch what is live in a room.", grants=["user"], errors=[NoRoom, BadName])
async def token(request: Request, body: Channel) -> Token:
    who, at = asker(request), time.time()
    async with reading(request) as db:
        place = await place_of(db, request, "see")
    if body.channel not in {watched(place.id, name) for name in WATCHED}:
        raise Refused("this room has no such channel", f"use {' or '.join(watched(place.id, one) for one in WATCHED)}")
    return Token(subscription_token(who, body.channel, at, limits.TOKEN_LIFE), limits.TOKEN_LIFE)


@operation("You have read up to here; all your devices hear it.", grants=["user"], errors=[NoRoom, BadName])
async def read(request: Request, body: Read) -> Cursor:
    who = asker(request)
    async with transaction(request) as db:
        place = await place_of(db, request, "write", lock=True)
        seq = read_to(place.read_seq, body.seq, place.seq)
        unread = await rooms.unread(db, place.id, who, seq)
        if seq != place.read_seq:
            await rooms.put(db, place.id, who, read_seq=seq)
            rooms.tell(db, who, Notice("read", place.id, seq, unread))
    return Cursor(seq, unread)


@operation("You write; at most every 3 s is told.", grants=["user"], errors=[NoRoom, BadName])
async def typing(request: Request) -> None:
    who, at = asker(request), milliseconds()
    async with transaction(request) as db:
        place = await place_of(db, request, "write")
        due = MEMBERS.c.typed_at <= at - limits.TYPING_EVERY
        mine = (MEMBERS.c.room == place.id, MEMBERS.c.member == who, due)
        told = (await db.execute(MEMBERS.update().where(*mine).values(typed_at=at))).rowcount
    if told:
        await publish(request, watched(place.id, "typing"), Typing(who))


@operation("The key of subscription tokens (RFC 7517).", grants=["anyone"])
async def keys(request: Request) -> KeySet:
    return KeySet([public_jwk()])
