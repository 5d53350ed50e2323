"""The service ``devices.shadow``: what is wanted of a device reaches it, at once or when it is back."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from devices import limits
from devices.events import Accepted, Document, Registered, Rejected
from devices.shadow.routes import ROUTES, changed
from devices.shadow.rules import NotTaken, Patch, forgotten, updated
from devices.shadow.tables import TABLES
from gateway import Context, Service
from gateway.sql import Database

service = Service(
    "shadow",
    database=Database(tables=TABLES, migrations="devices.shadow.migrations"),
    emits=[
        "devices/{device}/shadow",
        "devices/{device}/shadow/delta",
        "devices/{device}/shadow/update/accepted",
        "devices/{device}/shadow/update/rejected",
        "devices/{device}/shadow/get/accepted",
    ],
    routes=ROUTES,
)


@service.on("devices/{device}/shadow/update")
async def update(said: Any, context: Context) -> Accepted | Rejected:
    """What a device says of itself, and what it wants of itself: somebody may have pressed a button on it."""
    db, device, at = await context.transaction(), context.variables["device"], context.event.meta.ts
    answer: Accepted | Rejected
    patch = Patch(token=_token(said))
    try:
        patch = msgspec.convert(said, Patch)
        now = await changed(db, device, at, lambda old: updated(old, patch, at))
        answer = Accepted(now.version, patch.token)
    except msgspec.ValidationError as error:
        answer = Rejected("bad_update", str(error)[: limits.TEXT_MOST], patch.token)
    except NotTaken as error:
        answer = Rejected(error.code, str(error), patch.token, error.version)
    context.emit(f"devices/{device}/shadow/update/{type(answer).__name__.lower()}", answer)
    return answer


@service.on("devices/{device}/shadow/get")
async def get(said: bytes, context: Context) -> Document:
    db, device = await context.transaction(), context.variables["device"]
    # Held, so that no answer of before leaves behind a delta of after.
    shadow = await changed(db, device, context.event.meta.ts, lambda old: old)
    answer = Document(shadow.version, shadow.desired, shadow.reported)
    context.emit(f"devices/{device}/shadow/get/accepted", answer)
    return answer


@service.on("devices/{device}/registered")
async def registered(now: Registered, context: Context) -> None:
    """Whoever is made under the name of a device that was deleted inherits nothing of that, nor what it still says."""
    db, device, at = await context.transaction(), context.variables["device"], context.event.meta.ts
    gone = now.state == "deleted"
    await changed(db, device, at, lambda old: replace(forgotten(old, at) if gone else old, gone=gone))


def _token(said: object) -> str:
    """Return by what the device knows its update again, whatever else is wrong with it."""
    token = said.get("token") if isinstance(said, dict) else None
    return token[: limits.NAME_MOST] if isinstance(token, str) else ""
