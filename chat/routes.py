"""What chat answers over HTTP, below ``/chat/rooms``: rooms, and who is in them."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from chat import limits, rooms
from chat.asked import BadName, Full, NoRoom, TooFast, asker, checked, milliseconds, place_of
from chat.inside import history, keys, presence, read, token, typing
from chat.rooms import Place
from chat.rules import RoomKind
from gateway.sql import Reading, Transaction, reading, transaction
from gateway.web import Listing, Page, operation


class NewRoom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_MOST, pattern=r"\A[^\x00]*\Z")]
    #: The same key is the same room, however often it is asked for.
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.KEY_MOST)]
    kind: Literal["public", "private"] = "public"


class Room(msgspec.Struct, frozen=True):
    id: str
    kind: RoomKind
    name: str
    role: str
    #: Number of the newest entry; up to where is read; messages of others that are not.
    seq: int
    read_seq: int
    unread: int
    #: In a direct room: who else is there, and what they are called; empty where the account was erased.
    other: str = ""
    other_name: str = ""


class Listed(msgspec.Struct, frozen=True):
    id: str
    name: str
    seq: int


class Member(msgspec.Struct, frozen=True):
    user: str
    role: str
    read_seq: int
    #: As they call themselves; two may be called alike.
    name: str


class Name(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=limits.NAME_MOST, pattern=r"\A[^\x00]*\Z")]


async def _room(db: Reading, place: Place, user: str) -> Room:
    kind, role = place.standing.kind, place.standing.role
    unread = await rooms.unread(db, place.id, user, place.read_seq) if role != "none" else 0
    room = Room(place.id, kind, place.name, role, place.seq, place.read_seq, unread)
    there = await rooms.members(db, place.id, "", 2) if kind == "direct" else ()
    for other in there:
        if other.member != user:
            return msgspec.structs.replace(room, other=other.member, other_name=other.name or "")
    return room


@operation("Make a room, and own it.", grants=["user"], status=201, errors=[NoRoom, BadName, Full, TooFast])
async def create(request: Request, body: NewRoom) -> Room:
    who, at = asker(request), milliseconds()
    id = hashlib.sha256(msgspec.json.encode(["room", who, body.key])).hexdigest()[:24]
    async with transaction(request) as db:
        if await rooms.make(db, id, body.kind, body.name, at):
            await _enter(db, id, who, "owner", who)
        return await _seen(db, id, who)


@operation("Talk to somebody alone.", grants=["user"], errors=[NoRoom, BadName, Full, TooFast])
async def direct(request: Request) -> Room:
    who, other = asker(request), checked(request.path_params["user"])
    pair = sorted({who, other})
    id = hashlib.sha256(msgspec.json.encode(["direct", *pair])).hexdigest()[:24]
    async with transaction(request) as db:
        if await rooms.make(db, id, "direct", "", milliseconds()):
            await _enter(db, id, who, "member", who)
            if other != who:
                await _enter(db, id, other, "member", who)
        return await _seen(db, id, who)


async def _seen(db: Reading, id: str, who: str) -> Room:
    place = await rooms.find(db, id, who)
    if place is None or not place.standing.may("see"):
        raise NoRoom("the room of this key is not yours any more", "use another key")
    return await _room(db, place, who)


async def _enter(db: Transaction, room: str, user: str, role: str, by: str) -> None:
    if wait := await rooms.pace(db, by, milliseconds()):
        raise TooFast("too many rooms and members at once", "wait", retry_after=wait / 1000)
    if await rooms.is_full(db, room, user):
        raise Full("the room, or the list of rooms, is full", "leave another room")
    at = milliseconds()
    entry = await rooms.append(db, room, "joined", by, at, member=user)
    await rooms.enter(db, room, user, role, at, entry.seq)


@operation("Your rooms, with what is unread.", grants=["user"], errors=[BadName])
async def mine(request: Request, query: Listing) -> Page[Room]:
    who = asker(request)
    async with reading(request) as db:
        found = await rooms.rooms_of(db, who, query.after, query.limit + 1)
        listed = [await _room(db, place, who) for place in found]
    return Page.of(listed, query, lambda room: room.id)


@operation("Rooms that anybody may join.", grants=["user"])
async def public(request: Request, query: Listing) -> Page[Listed]:
    async with reading(request) as db:
        found = await rooms.public_rooms(db, query.after, query.limit + 1)
    return Page.of([Listed(r.id, r.name, r.seq) for r in found], query, lambda room: room.id)


@operation("What others see you as, beside your id.", grants=["user"], errors=[BadName])
async def call(request: Request, body: Name) -> None:
    async with transaction(request) as db:
        await rooms.call(db, asker(request), body.name.strip())


@operation("One room.", grants=["user"], errors=[NoRoom, BadName])
async def one(request: Request) -> Room:
    async with reading(request) as db:
        return await _room(db, await place_of(db, request, "see"), asker(request))


@operation("Join a public room; who is in it, stays.", grants=["user"], errors=[NoRoom, BadName, Full, TooFast])
async def join(request: Request) -> Room:
    who = asker(request)
    async with transaction(request) as db:
        place = await place_of(db, request, "see", lock=True)
        if place.standing.may("join"):
            await _enter(db, place.id, who, "member", who)
        return await _seen(db, place.id, who)


@operation("Leave a room; its subscriptions end.", grants=["user"], errors=[NoRoom, BadName])
async def leave(request: Request) -> None:
    async with transaction(request) as db:
        place = await place_of(db, request, "leave", lock=True)
        await rooms.depart(db, place, asker(request), asker(request), milliseconds())


@operation("Let somebody into your private room.", grants=["user"], errors=[NoRoom, BadName, Full, TooFast])
async def invite(request: Request) -> None:
    user = checked(request.path_params["user"])
    async with transaction(request) as db:
        place = await place_of(db, request, "invite", lock=True)
        other = await rooms.find(db, place.id, user)
        if other is not None and other.standing.role == "none":
            await _enter(db, place.id, user, "member", asker(request))


@operation("Send somebody out; the subscriptions end.", grants=["user"], errors=[NoRoom, BadName])
async def remove(request: Request) -> None:
    user = request.path_params["user"]
    async with transaction(request) as db:
        place = await place_of(db, request, "remove", lock=True)
        other = await rooms.find(db, place.id, user)
        if other is not None and other.standing.role == "member":
            await rooms.depart(db, other, user, asker(request), milliseconds())


@operation("Who is in a room.", grants=["user"], errors=[NoRoom, BadName])
async def listed(request: Request, query: Listing) -> Page[Member]:
    async with reading(request) as db:
        place = await place_of(db, request, "see")
        found = await rooms.members(db, place.id, query.after, query.limit + 1)
    return Page.of(
        [Member(r.member, r.role, r.read_seq, r.name or "") for r in found], query, lambda member: member.user
    )


ROUTES = [
    Route("/", create, methods=["POST"]),
    Route("/", mine),
    Route("/.well-known/jwks.json", keys),
    Route("/me", call, methods=["PUT"]),
    Route("/public", public),
    Route("/direct/{user}", direct, methods=["PUT"]),
    Route("/{room}", one),
    Route("/{room}/join", join, methods=["POST"]),
    Route("/{room}/leave", leave, methods=["POST"]),
    Route("/{room}/members", listed),
    Route("/{room}/members/{user}", invite, methods=["PUT"]),
    Route("/{room}/members/{user}", remove, methods=["DELETE"]),
    Route("/{room}/presence", presence),
    Route("/{room}/history", history),
    Route("/{room}/tokens", token, methods=["POST"]),
    Route("/{room}/read", read, methods=["PUT"]),
    Route("/{room}/typing", typing, methods=["POST"]),
]
