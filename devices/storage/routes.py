"""What storage answers over HTTP: below ``/devices/storage``."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import tuple_
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devices import limits
from devices.asked import asked, page, position
from devices.storage.rollup import SIZES, Run, level
from devices.storage.tables import LATEST, POINTS, ROLLUPS, RUNS
from gateway.sql import reading
from gateway.web import Refused, answer, principal

#: Who reads a device: itself, and people.
READERS = ("device:{device}", "user", "operator")


class Latest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Age in ms from which a value is stale."""

    stale_after: Annotated[int, msgspec.Meta(ge=0)] = limits.STALE_AFTER


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From ``begin`` to before ``end``, in ms: the last hour by default. ``points`` chooses the level."""

    begin: Annotated[int, msgspec.Meta(ge=0)] | None = None
    end: Annotated[int, msgspec.Meta(ge=0)] | None = None
    level: Literal["raw", "minute", "hour"] | None = None
    points: Annotated[int, msgspec.Meta(ge=1)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE)] = limits.PAGE
    after: str = ""


async def newest(request: Request) -> Response:
    """The last value of each metric, by event time, with its age."""
    principal(request, *READERS)
    said, now = asked(request, Latest), time.time_ns() // 1_000_000
    wanted = LATEST.select().where(LATEST.c.device == request.path_params["device"]).order_by(LATEST.c.metric)
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    return answer(
        [
            {
                "metric": row.metric,
                "ts": row.ts,
                "value": row.value,
                "age": max(0, now - row.ts),
                "stale": now - row.ts > said.stale_after,
            }
            for row in rows
        ]
    )


async def series(request: Request) -> Response:
    """A page of one metric: readings, or what those of each minute or hour were."""
    principal(request, *READERS)
    said = asked(request, Range)
    end = said.end if said.end is not None else time.time_ns() // 1_000_000 + 1
    begin = said.begin if said.begin is not None else end - SIZES["hour"]
    if said.level and said.points:
        raise Refused("level and points are both there", "name one of them")
    chosen = said.level or (level(begin, end, said.points) if said.points else "raw")
    device, metric = request.path_params["device"], request.path_params["metric"]
    if chosen == "raw":
        of: Any = POINTS.c
        wanted = POINTS.select().where(of.device == device, of.metric == metric, of.ts >= begin, of.ts < end)
        key: tuple[Any, ...] = (of.ts, of.boot, of.seq)
        if said.after:
            wanted = wanted.where(tuple_(*key) > position(said.after, tuple[int, str, int]))
    else:
        of, size = ROLLUPS.c, SIZES[chosen]
        wanted = ROLLUPS.select().where(of.device == device, of.metric == metric, of.size == size)
        # The first is the one that `begin` is in.
        wanted = wanted.where(of.start >= begin // size * size, of.start < end)
        key = (of.start,)
        if said.after:
            wanted = wanted.where(of.start > position(said.after, tuple[int])[0])
    async with reading(request) as db:
        rows = (await db.execute(wanted.order_by(*key).limit(said.limit + 1))).all()
    found = page(rows, said.limit, lambda row: [getattr(row, column.name) for column in key])
    shown = [_point(row) if chosen == "raw" else _rollup(row) for row in rows[: said.limit]]
    return answer({"level": chosen, "items": shown, "next": found})


def _point(row: Any) -> dict[str, object]:
    return {"ts": row.ts, "value": row.value, "boot": row.boot, "seq": row.seq}


def _rollup(row: Any) -> dict[str, object]:
    # A row has a method `count` of its own.
    known = row._mapping
    return {
        "start": row.start,
        "count": known["count"],
        "mean": row.total / known["count"],
        "min": row.least,
        "max": row.most,
    }


async def losses(request: Request) -> Response:
    """What came, what came twice and what is missing, of each start of the device; the newest first."""
    principal(request, *READERS)
    wanted = RUNS.select().where(RUNS.c.device == request.path_params["device"]).order_by(RUNS.c.ts.desc())
    async with reading(request) as db:
        rows = (await db.execute(wanted.limit(limits.PAGE))).all()
    found = [(row.boot, Run(row.first, row.last, row.received, row.doubled, row.ts)) for row in rows]
    return answer([{"boot": boot, **msgspec.structs.asdict(run), "lost": run.lost} for boot, run in found])


ROUTES = (
    Route("/{device}/latest", newest),
    Route("/{device}/series/{metric}", series),
    Route("/{device}/losses", losses),
)
