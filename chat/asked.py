"""Who asks, and for which room: what every route of chat begins with."""

from __future__ import annotations

import time

from starlette.requests import Request

from chat import rooms
from chat.rooms import Place
from chat.rules import Act, is_name
from gateway import GatewayError
from gateway.sql import Reading
from gateway.web import Denied, NotAvailable, Refused, principal


class NoRoom(NotAvailable):
    """There is no such room, or none for who asks: nobody learns which."""

    code = "no_room"


class Full(GatewayError):
    """A room that has all its members, or a user who is in too many rooms."""

    code, status, whose = "full", 409, "caller"


class TooFast(GatewayError):
    """More in a row than anybody does by hand."""

    code, status, retry, whose = "too_fast", 429, True, "caller"


class BadName(Refused):
    """Somebody whose name cannot be part of a topic."""

    code, status = "bad_name", 422


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


def checked(name: str) -> str:
    if not is_name(name):
        raise BadName(f"{name[:64]!r} cannot be part of a topic", "use 1 to 64 of a-z, A-Z, 0-9 and _ . @ : -")
    return name


def asker(request: Request) -> str:
    return checked(principal(request, "user").name)


async def place_of(db: Reading, request: Request, act: Act, *, lock: bool = False) -> Place:
    found = await rooms.find(db, request.path_params["room"], asker(request), lock=lock)
    if found is None or not found.standing.may("see"):
        raise NoRoom("there is no such room of yours", "look at your list")
    if not found.standing.may(act):
        raise Denied(
            f"who is {found.standing.role} in a {found.standing.kind} room may not {act}", "ask the room's owner"
        )
    return found
