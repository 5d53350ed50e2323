"""What the shadows answer over HTTP: below ``/devices/shadow``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from devices import limits
from devices.events import PEOPLE, READERS, Delta, Device, Document
from devices.rows import replaced
from devices.shadow.rules import Patch, Shadow, Stale, Times, TooMuch, Tree, forgotten, patched, same
from devices.shadow.tables import SHADOWS
from gateway import GatewayError
from gateway.sql import Reading, Transaction, reading, transaction, upsert
from gateway.web import Listing, NotAvailable, Page, Refused, operation

_FIRST: Final = upsert(SHADOWS)


class Conflict(GatewayError):
    """The shadow changed since it was read."""

    code, status, whose = "version_conflict", 409, "caller"


class NotAShadow(Refused):
    """Nothing that a device's shadow may be."""

    code, status = "bad_shadow", 422


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON merge patch (RFC 7396) of what is wanted: null takes a field away, or all of them."""

    desired: Tree | None
    #: Of the shadow that this is to change; absent: of any.
    version: Annotated[int, msgspec.Meta(ge=0, le=limits.SEQ_MOST)] | None = None


class Found(msgspec.Struct, frozen=True):
    """A shadow; ``delta`` is what is wanted and is not so yet, ``times`` when each field changed last, in ms."""

    device: str
    version: int
    desired: Tree
    reported: Tree
    delta: Tree
    times: Times

    @classmethod
    def of(cls, device: str, shadow: Shadow) -> Found:
        return cls(device, shadow.version, shadow.desired, shadow.reported, shadow.delta, shadow.times)


class Listed(Listing, frozen=True):
    #: Whether something is wanted that is not so yet.
    pending: bool | None = None


class Brief(msgspec.Struct, frozen=True):
    """Whether a device is as it is wanted, and when its shadow changed last, in ms."""

    device: str
    version: int
    pending: bool
    changed: int


async def known(db: Reading, device: str, *, hold: bool = False) -> Shadow:
    """Return the shadow, of version 0 where there is none; ``hold``: until this transaction ends it stays so."""
    wanted = SHADOWS.select().with_only_columns(SHADOWS.c.said).where(SHADOWS.c.device == device)
    said = await db.scalar(wanted.with_for_update() if hold else wanted)
    return Shadow() if said is None else msgspec.json.decode(said, type=Shadow)


async def changed(db: Transaction, device: str, at: int, how: Callable[[Shadow], Shadow]) -> Shadow:
    """Let ``how`` change the shadow, and tell who should know what became of it."""
    row = {"device": device, "version": 0, "pending": False, "changed": at, "said": msgspec.json.encode(Shadow())}
    # Its row first, held: what comes at once is done, and told, one after the other.
    await db.execute(_FIRST, row)
    old = await known(db, device, hold=True)
    if (new := how(old)) != old:
        delta, said = new.delta, msgspec.json.encode(new)
        row = {"device": device, "version": new.version, "pending": bool(delta), "changed": at, "said": said}
        await db.execute(replaced(SHADOWS), row)
        if new.version > old.version:
            db.emit(f"devices/{device}/shadow", Document(new.version, new.desired, new.reported))
            if not same(delta, old.delta):
                db.emit(f"devices/{device}/shadow/delta", Delta(new.version, delta))
    return new


@operation("The shadows, by device.", grants=PEOPLE)
async def every(request: Request, query: Listed) -> Page[Brief]:
    of = SHADOWS.c
    wanted = SHADOWS.select().with_only_columns(of.device, of.version, of.pending, of.changed)
    wanted = wanted.where(of.device > query.after, of.version > 0).order_by(of.device).limit(query.limit + 1)
    if query.pending is not None:
        wanted = wanted.where(of.pending.is_(query.pending))
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    return Page.of([Brief(*row) for row in rows], query, lambda one: one.device)


@operation(
    "A device's shadow: what is wanted of it, and what it says of itself.",
    grants=READERS,
    errors=[NotAvailable],
    description="Of version 0 where nobody said anything yet.",
)
async def one(request: Request) -> Found:
    device = _device(request)
    async with reading(request) as db:
        return Found.of(device, await known(db, device))


@operation(
    "Say what is wanted of a device; it is told, at once or when it is back.",
    grants=["operator"],
    errors=[Conflict, NotAvailable, NotAShadow],
    description="With a `version`, only if the shadow is of that version still.",
)
async def want(request: Request, body: Wanted) -> Found:
    device, now = _device(request), time.time_ns() // 1_000_000
    patch = Patch(desired=body.desired, version=body.version)
    try:
        async with transaction(request) as db:
            return Found.of(device, await changed(db, device, now, lambda old: patched(old, patch, now)))
    except TooMuch as error:
        raise NotAShadow(str(error), "want less of it") from None
    except Stale as error:
        raise Conflict(str(error), "read it, and say again what you want") from None


@operation("Forget what is wanted of a device and what it said of itself.", grants=["operator"], errors=[NotAvailable])
async def forget(request: Request) -> None:
    device, now = _device(request), time.time_ns() // 1_000_000
    async with transaction(request) as db:
        await changed(db, device, now, lambda old: forgotten(old, limits.SEQ_MOST))  # whatever clock it has its time of


def _device(request: Request) -> str:
    try:
        return msgspec.convert(request.path_params["device"], Device)
    except msgspec.ValidationError as error:
        raise NotAvailable(f"no device has such a name: {error}", "see /devices/registry/") from None


ROUTES = (
    Route("/", every, methods=["GET"]),
    Route("/{device}", one, methods=["GET"]),
    Route("/{device}", want, methods=["PATCH"]),
    Route("/{device}", forget, methods=["DELETE"]),
)
