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
from devices.asked import asked, page, position
from devices.events import Device, Registered
from devices.registry.broker import hashed, password
from devices.registry.rules import STEPS, What
from devices.registry.tables import DEVICES, PRESENCE, SEEN
from devices.rows import replaced
from gateway.sql import Transaction, reading, transaction
from gateway.web import NotAvailable, Refused, answer, body, principal

#: The bridge's account at the broker, which is no device.
_BRIDGE = "gateway"


class Conflict(Refused):
    """What is asked does not go with what the device is."""

    code, status = "conflict", 409


class Full(Refused):
    """As many devices as there may be."""

    code, status = "limit", 422


class Project(msgspec.Struct, frozen=True):
    """Asks that the broker's file says what the registry says."""

    #: Nothing changed here.
    timer: bool = False


class New(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    device: Device
    label: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["active", "suspended"] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE)] = limits.PAGE
    after: str = ""


async def create(request: Request) -> Response:
    """Make a device; the answer has its password, this once. The broker knows it within moments."""
    principal(request, "operator")
    new, word = await body(request, New), password()
    if new.device == _BRIDGE:
        raise Conflict(f"{_BRIDGE} is the bridge", "choose another name")
    async with transaction(request) as db:
        old = await db.scalar(select(DEVICES.c.state).where(DEVICES.c.device == new.device))
        if (old or "deleted", "create") not in STEPS:
            raise Conflict(f"{new.device} is there already", "rotate its password, or delete it first")
        count = await db.scalar(select(func.count()).select_from(DEVICES).where(DEVICES.c.state != "deleted"))
        if count >= limits.DEVICES_MOST:
            raise Full(f"there are {limits.DEVICES_MOST} devices", "delete some, or use a second broker")
        row = {"device": new.device, "state": "active", "label": new.label, "hashed": hashed(word)}
        await db.execute(replaced(DEVICES), {**row, "created": time.time_ns() // 1_000_000})
        _changed(db, new.device, "active")
    return answer({"device": new.device, "password": word}, 201)


async def change(request: Request) -> Response:
    """Suspend, resume or delete a device, or give it a new password, which is in the answer."""
    principal(request, "operator")
    device, word = request.path_params["device"], password()
    what: What = "delete" if request.method == "DELETE" else request.path_params["what"]
    of = DEVICES.c.device == device
    async with transaction(request) as db:
        # The row's lock first, so that what is told of a device leaves in the order in which it happened.
        row = (await db.execute(DEVICES.select().where(of).with_for_update())).first()
        if row is None or row.state == "deleted":
            raise _unknown(device)
        if (state := STEPS.get((row.state, what))) is None:
            raise NotAvailable(f"nobody can {what} a device", "suspend, resume or rotate it")
        await db.execute(DEVICES.update().where(of).values(state=state))
        if what == "rotate":
            await db.execute(DEVICES.update().where(of).values(hashed=hashed(word)))
        _changed(db, device, state)
    if what == "rotate":
        return answer({"device": device, "password": word})
    return Response(status_code=204)


def _changed(db: Transaction, device: str, state: Any) -> None:
    db.emit(f"devices/{device}/registered", Registered(state))
    db.later(limits.AT_ONCE, "devices/registry/project", Project())


async def every(request: Request) -> Response:
    """A page of the devices, by name."""
    principal(request, "user", "operator")
    said = asked(request, Listed)
    wanted = _joined().where(DEVICES.c.state == said.state if said.state else DEVICES.c.state != "deleted")
    if said.after:
        wanted = wanted.where(DEVICES.c.device > position(said.after, tuple[str])[0])
    async with reading(request) as db:
        rows = (await db.execute(wanted.order_by(DEVICES.c.device).limit(said.limit + 1))).all()
    items = [dict(row._mapping) for row in rows[: said.limit]]
    return answer({"items": items, "next": page(rows, said.limit, lambda row: (row.device,))})


async def one(request: Request) -> Response:
    """One device, whether it is there, and when it was last heard; a device may ask for itself."""
    principal(request, "device:{device}", "user", "operator")
    device = request.path_params["device"]
    async with reading(request) as db:
        row = (await db.execute(_joined().where(DEVICES.c.device == device, DEVICES.c.state != "deleted"))).first()
    if row is None:
        raise _unknown(device)
    return answer(dict(row._mapping))


async def reconcile(request: Request) -> Response:
    """Have the broker told of all devices once more: after its file was lost, or changed by somebody."""
    principal(request, "operator")
    async with transaction(request) as db:
        db.later(limits.AT_ONCE, "devices/registry/project", Project())
    return Response(status_code=202)


def _joined() -> Any:
    of = (PRESENCE.c.online, PRESENCE.c.boot, PRESENCE.c.since, SEEN.c.seen)
    tables = DEVICES.outerjoin(PRESENCE, PRESENCE.c.device == DEVICES.c.device).outerjoin(
        SEEN, SEEN.c.device == DEVICES.c.device
    )
    return select(DEVICES.c.device, DEVICES.c.state, DEVICES.c.label, DEVICES.c.created, *of).select_from(tables)


def _unknown(device: str) -> NotAvailable:
    return NotAvailable(f"there is no device {device!r}", "see /devices/registry/")


ROUTES = (
    Route("/", every),
    Route("/", create, methods=["POST"]),
    Route("/reconcile", reconcile, methods=["POST"]),
    Route("/{device}", one),
    Route("/{device}", change, methods=["DELETE"]),
    Route("/{device}/{what}", change, methods=["POST"]),
)
