"""What storage answers over HTTP: below ``/devices/storage``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import msgspec
from sqlalchemy import tuple_
from starlette.requests import Request
from starlette.routing import Route

from devices import limits
from devices.events import READERS, Time
from devices.storage.rollup import SIZES, Level, Run, level
from devices.storage.tables import LATEST, POINTS, ROLLUPS, RUNS
from gateway.sql import reading
from gateway.web import Listing, Page, Refused, operation

T = TypeVar("T")


class Latest(Listing, frozen=True):
    stale_after: Annotated[Time, msgspec.Meta(description="Age in ms.")] = limits.STALE_AFTER


class Value(msgspec.Struct, frozen=True):
    """The newest of one metric, by event time; times in ms."""

    metric: str
    ts: int
    value: float
    age: int
    stale: bool


class Range(Listing, frozen=True):
    """From ``begin`` to before ``end``, in ms: the last hour by default. ``points`` chooses the level."""

    begin: Time | None = None
    end: Time | None = None
    level: Level | Literal["raw"] | None = None
    points: Annotated[int, msgspec.Meta(ge=1, le=limits.SEQ_MOST)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE)] = limits.PAGE


class Point(msgspec.Struct, frozen=True):
    """A reading of one metric."""

    ts: int
    value: float
    boot: str
    seq: int


class Bar(msgspec.Struct, frozen=True):
    """What the readings of a minute or an hour were."""

    start: int
    count: int
    mean: float
    min: float
    max: float


#: msgspec, whose schemas these are, knows no choice between structs without a tag.
_EITHER: Final = [msgspec.json.schema(one)["$defs"][one.__name__] for one in (Point, Bar)]


class Series(msgspec.Struct, frozen=True):
    """Points where the level is ``raw``, else bars, by time."""

    level: Level | Literal["raw"]
    items: Annotated[Sequence[Any], msgspec.Meta(extra_json_schema={"items": {"anyOf": _EITHER}})]
    next: str | None


class Losses(msgspec.Struct, frozen=True):
    """The numbers that came of one start of a device, what came twice, and what is missing yet."""

    boot: str
    first: int
    last: int
    received: int
    doubled: int
    #: The newest of its times.
    ts: int
    lost: int


@operation("The last value of each metric, by event time, with its age.", grants=READERS)
async def newest(request: Request, query: Latest) -> Page[Value]:
    now = time.time_ns() // 1_000_000
    of = LATEST.c
    wanted = LATEST.select().where(of.device == request.path_params["device"], of.metric > query.after)
    async with reading(request) as db:
        rows = (await db.execute(wanted.order_by(of.metric).limit(query.limit + 1))).all()
    some = [
        Value(row.metric, row.ts, row.value, max(0, now - row.ts), now - row.ts > query.stale_after) for row in rows
    ]
    return Page.of(some, query, lambda one: one.metric)


@operation(
    "A page of one metric: readings, or what those of each minute or hour were.",
    grants=READERS,
    description="By time; the last hour where the query names none. `points` chooses the level that fits.",
)
async def series(request: Request, query: Range) -> Series:
    end = query.end if query.end is not None else time.time_ns() // 1_000_000 + 1
    begin = query.begin if query.begin is not None else max(0, end - SIZES["hour"])
    if query.level and query.points:
        raise Refused("level and points are both there", "name one of them")
    chosen: Level | Literal["raw"] = query.level or (level(begin, end, query.points) if query.points else "raw")
    device, metric = request.path_params["device"], request.path_params["metric"]
    if chosen == "raw":
        of: Any = POINTS.c
        wanted = POINTS.select().where(of.device == device, of.metric == metric, of.ts >= begin, of.ts < end)
        key: tuple[Any, ...] = (of.ts, of.boot, of.seq)
        if query.after:
            ts, seq, boot = _position(query.after, tuple[Time, Time, str])
            wanted = wanted.where(tuple_(*key) > (ts, boot, seq))
    else:
        of, size = ROLLUPS.c, SIZES[chosen]
        wanted = ROLLUPS.select().where(of.device == device, of.metric == metric, of.size == size)
        # The first is the one that `begin` is in.
        wanted = wanted.where(of.start >= begin // size * size, of.start < end)
        key = (of.start,)
        if query.after:
            wanted = wanted.where(of.start > _position(query.after, tuple[Time])[0])
    async with reading(request) as db:
        rows = (await db.execute(wanted.order_by(*key).limit(query.limit + 1))).all()
    if chosen == "raw":
        points = [Point(row.ts, row.value, row.boot, row.seq) for row in rows]
        found: Page[Any] = Page.of(points, query, lambda one: f"{one.ts}/{one.seq}/{one.boot}")
    else:
        found = Page.of([_bar(row._mapping) for row in rows], query, lambda one: f"{one.start}")
    return Series(chosen, found.items, found.next)


def _bar(row: Any) -> Bar:
    return Bar(row["start"], row["count"], row["total"] / row["count"], row["least"], row["most"])


def _position(after: str, kind: type[T]) -> T:
    """Return the key behind ``?after=``, which `Page.of` made."""
    try:
        return msgspec.convert(after.split("/", len(get_args(kind)) - 1), kind, strict=False)  # a boot may have a "/"
    except msgspec.ValidationError:
        raise Refused("after is not the `next` of such a page", "leave it out to begin anew") from None


@operation(
    "What came, what came twice and what is missing, of each start of the device.",
    grants=READERS,
    description="The newest first: one that is heard again meanwhile is on the first page then.",
)
async def losses(request: Request, query: Listing) -> Page[Losses]:
    key = (RUNS.c.ts, RUNS.c.boot)
    wanted = RUNS.select().where(RUNS.c.device == request.path_params["device"])
    if query.after:
        wanted = wanted.where(tuple_(*key) < _position(query.after, tuple[Time, str]))
    wanted = wanted.order_by(*(one.desc() for one in key)).limit(query.limit + 1)
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    found = [(row.boot, Run(row.first, row.last, row.received, row.doubled, row.ts)) for row in rows]
    some = [Losses(boot=boot, lost=run.lost, **msgspec.structs.asdict(run)) for boot, run in found]
    return Page.of(some, query, lambda one: f"{one.ts}/{one.boot}")


ROUTES = (
    Route("/{device}/latest", newest, methods=["GET"]),
    Route("/{device}/series/{metric}", series, methods=["GET"]),
    Route("/{device}/losses", losses, methods=["GET"]),
)
