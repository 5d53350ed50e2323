"""What analytics answers over HTTP: below ``/devices/analytics``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devices.analytics.tables import MARKS
from devices.analytics.windows import watermark
from gateway.sql import reading
from gateway.web import NotAvailable, answer, principal


async def mark(request: Request) -> Response:
    """How far the windows of a device are, and how many of its readings came too late for theirs."""
    principal(request, "device:{device}", "user", "operator")
    async with reading(request) as db:
        row = (await db.execute(MARKS.select().where(MARKS.c.device == request.path_params["device"]))).first()
    if row is None:
        raise NotAvailable("nothing came of this device", "look for it in the registry")
    return answer({"newest": row.newest, "watermark": watermark(row.newest), "late": row.late})


ROUTES = (Route("/{device}/watermark", mark),)
