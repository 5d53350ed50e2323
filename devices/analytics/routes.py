"""What analytics answers over HTTP: below ``/devices/analytics``."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from devices.analytics.tables import MARKS
from devices.analytics.windows import watermark
from devices.events import READERS
from gateway.sql import reading
from gateway.web import NotAvailable, operation


class Mark(msgspec.Struct, frozen=True):
    """How far the windows of a device are, in ms, and how many of its readings came too late for theirs."""

    newest: int
    watermark: int
    late: int


@operation("How far the windows of a device are, and what came too late.", grants=READERS, errors=[NotAvailable])
async def mark(request: Request) -> Mark:
    async with reading(request) as db:
        row = (await db.execute(MARKS.select().where(MARKS.c.device == request.path_params["device"]))).first()
    if row is None:
        raise NotAvailable("nothing came of this device", "look for it in the registry")
    return Mark(row.newest, watermark(row.newest), row.late)


ROUTES = (Route("/{device}/watermark", mark, methods=["GET"]),)
