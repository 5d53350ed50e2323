"""What the registry answers over HTTP: below ``/devices/registry``."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devices import limits
from devices.events import PEOPLE, READERS, Device, Registered
from devices.registry.broker import hashed, password
from devices.registry.rules import STEPS, What
from devices.registry.tables import DEVICES, PRESENCE, SEEN, TIMER
from devices.rows import replaced
from gateway import GatewayError
from gateway.sql import Transaction, reading, transaction
from gateway.web import Listing, NotAvailable, Page, Refused, answer, operation

#: The bridge's account at the broker, and a path of ours.
_TAKEN = ("gateway", "reconcile")


class Conflict(GatewayError):
    """What is asked does not go with what the device is."""

    code, status, whose = "conflict", 409, "caller"


class Full(Refused):
    """As many devices as there may be."""

    code, status = "limit", 422


class Project(msgspec.Struct, frozen=True):
    """Asks that the broker's file says what the registry says."""

    #: Nothing changed here.
    timer: bool = False


class New(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    device: Device
    label: Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00]*$")] = ""


class Account(msgspec.Struct, frozen=True):
    """With what a device enters the broker: the only time that the password can be read."""

    device: str
    password: str


class Listed(Listing, frozen=True):
    state: Literal["active", "suspended"] | None = None


class Found(msgspec.Struct, frozen=True):
    """A device; what it never said of itself is null. Times in ms."""

    device: str
    state: str
    label: str
    created: int
    online: bool | None
    boot: str | None
    #: Since when it is, or is not, there.
    since: int | None
    #: When something of it came last.
    seen: int | None


@operation(
    "Make a device; the broker knows it within moments.",
    grants=["operator"],
    status=201,
    errors=[Conflict, Full],
    description="The answer has its password, this once.",
)
async def create(request: Request, body: New) -> Account:
    word = password()
    if body.device in _TAKEN:
        raise Conflict(f"{body.device} has a meaning of its own", "choose another name")
    async with transaction(request) as db:
        old = await db.scalar(select(DEVICES.c.state).where(DEVICES.c.device == body.device))
        if (old or "deleted", "create") not in STEPS:
            raise Conflict(f"{body.device} is there already", "rotate its password, or delete it first")
        count = await db.scalar(select(func.count()).select_from(DEVICES).where(DEVICES.c.state != "deleted"))
        if count >= limits.DEVICES_MOST:
            raise Full(f"there are {limits.DEVICES_MOST} devices", "delete some, or use a second broker")
        row = {"device": body.device, "state": "active", "label": body.label, "hashed": hashed(word)}
        await db.execute(replaced(DEVICES), {**row, "created": time.time_ns() // 1_000_000})
        _changed(db, body.device, "active")
    return Account(body.device, word)


@operation("Take a device's account away. What it measured stays.", grants=["operator"], errors=[NotAvailable])
async def delete(request: Request) -> None:
    await _change(request, "delete")


@operation(
    "Suspend or resume a device, or rotate its password.",
    grants=["operator"],
    errors=[NotAvailable],
    answers={200: Account, 204: None},
    description="The last path segment is `suspend`, `resume` or `rotate`, which answers with the new password.",
)
async def change(request: Request) -> Response:
    if (what := request.path_params["what"]) not in ("suspend", "resume", "rotate"):
        raise NotAvailable("nobody can do that to a device", "suspend, resume or rotate it")
    if (word := await _change(request, what)) is None:
        return Response(status_code=204)
    return answer(Account(request.path_params["device"], word))


async def _change(request: Request, what: What) -> str | None:
    """Return the new password where there is one."""
    device, word = request.path_params["device"], password() if what == "rotate" else None
    of = DEVICES.c.device == device
    async with transaction(request) as db:
        # The row's lock first, so that what is told of a device leaves in the order in which it happened.
        row = (await db.execute(DEVICES.select().where(of).with_for_update())).first()
        if row is None or (state := STEPS.get((row.state, what))) is None:
            raise _unknown(device)
        await db.execute(DEVICES.update().where(of).values(state=state))
        if word is not None:
            await db.execute(DEVICES.update().where(of).values(hashed=hashed(word)))
        _changed(db, device, state)
    return word


def _changed(db: Transaction, device: str, state: Any) -> None:
    db.emit(f"devices/{device}/registered", Registered(state))
    db.later(limits.AT_ONCE, "devices/registry/project", Project())


@operation("The devices, by name.", grants=PEOPLE)
async def every(request: Request, query: Listed) -> Page[Found]:
    wanted = _joined().where(DEVICES.c.state == query.state if query.state else DEVICES.c.state != "deleted")
    wanted = wanted.where(DEVICES.c.device > query.after).order_by(DEVICES.c.device).limit(query.limit + 1)
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    return Page.of([Found(*row) for row in rows], query, lambda found: found.device)


@operation("A device, whether it is there, and when it was last heard.", grants=READERS, errors=[NotAvailable])
async def one(request: Request) -> Found:
    device = request.path_params["device"]
    async with reading(request) as db:
        row = (await db.execute(_joined().where(DEVICES.c.device == device, DEVICES.c.state != "deleted"))).first()
    if row is None:
        raise _unknown(device)
    return Found(*row)


@operation(
    "Have the broker told of all devices once more.",
    grants=["operator"],
    answers={202: None},
    description="After its file was lost, or changed by somebody.",
)
async def reconcile(request: Request) -> Response:
    async with transaction(request) as db:
        db.later(limits.AT_ONCE, "devices/registry/project", Project())
    return Response(status_code=202)


class Told(msgspec.Struct, frozen=True):
    """Whether the broker has read what the registry wrote for it last."""

    told: bool
    #: What was in the way; it is tried again every minute.
    why: str = ""


@operation("Whether the broker knows what the registry knows.", grants=PEOPLE)
async def reconciled(request: Request) -> Told:
    async with reading(request) as db:
        untold = await db.scalar(select(TIMER.c.untold))
    return Told(not untold, untold or "")


def _joined() -> Any:
    of = (PRESENCE.c.online, PRESENCE.c.boot, PRESENCE.c.since, SEEN.c.seen)
    tables = DEVICES.outerjoin(PRESENCE, PRESENCE.c.device == DEVICES.c.device).outerjoin(
        SEEN, SEEN.c.device == DEVICES.c.device
    )
    return select(DEVICES.c.device, DEVICES.c.state, DEVICES.c.label, DEVICES.c.created, *of).select_from(tables)


def _unknown(device: str) -> NotAvailable:
    return NotAvailable(f"there is no device {device!r}", "see /devices/registry/")


ROUTES = (
    Route("/", every, methods=["GET"]),
    Route("/", create, methods=["POST"]),
    Route("/reconcile", reconcile, methods=["POST"]),
    Route("/reconcile", reconciled, methods=["GET"]),
    Route("/{device}", one, methods=["GET"]),
    Route("/{device}", delete, methods=["DELETE"]),
    Route("/{device}/{what}", change, methods=["POST"]),
)
