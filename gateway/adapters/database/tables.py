"""The gateway's own tables in a service's database: what was handled, what leaves, and who sends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Executable,
    FetchedValue,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from gateway import limits
from gateway.core.event import Event, Meta
from gateway.store import Outgoing, Reading, Row, SagaCount, Seen

TABLES: Final = MetaData()
#: Whole numbers that SQLite counts up by itself have to be called INTEGER there.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

INBOX: Final = Table(
    "gateway_inbox",
    TABLES,
    Column("group", String(128), primary_key=True),
    Column("id", String(256), primary_key=True),
    #: Milliseconds since 1970, when it was handled, by the database's own clock.
    Column("at", BigInteger, nullable=False, server_default=FetchedValue()),
    Column("reply", LargeBinary),
    Index("gateway_inbox_at", "at"),
    sqlite_with_rowid=False,
)
OUTBOX: Final = Table(
    "gateway_outbox",
    TABLES,
    Column("seq", _Serial, primary_key=True),
    Column("topic", String(1024), nullable=False),
    Column("id", String(256), nullable=False),
    Column("data", LargeBinary, nullable=False),
    #: As in the log, a MessagePack map.
    Column("meta", LargeBinary, nullable=False),
    #: Milliseconds since 1970 from which it may leave; 0 for at once.
    Column("due", BigInteger, nullable=False),
    Index("gateway_outbox_due", "due", "seq"),
    sqlite_autoincrement=True,
)
RELAY: Final = Table(
    "gateway_relay",
    TABLES,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(64), nullable=False),
    Column("until", BigInteger, nullable=False),
)
SAGAS: Final = Table(
    "gateway_saga",
    TABLES,
    Column("saga", String(64), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("phase", String(16), nullable=False),
    #: JSON: step → what is known of it.
    Column("steps", LargeBinary, nullable=False),
    #: The application's, JSON.
    Column("data", LargeBinary, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    #: Milliseconds since 1970: when the present command is late, when the saga began, when it first ended.
    Column("late", BigInteger),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Index("gateway_saga_phase", "saga", "phase"),
    Index("gateway_saga_ended", "saga", "ended"),
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Meta).decode

_CLAIM = {
    "sqlite": sqlite.insert(INBOX).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(INBOX).on_conflict_do_nothing(),
}
_CLAIM_ALL = insert(INBOX)
_REPLY = select(INBOX.c.reply).where(INBOX.c.group == bindparam("g"), INBOX.c.id == bindparam("i"))
_ANSWER = update(INBOX).where(INBOX.c.group == bindparam("g"), INBOX.c.id == bindparam("i"))
_ANSWER = _ANSWER.values(reply=bindparam("r"))
_SEEN = select(INBOX.c.id).where(INBOX.c.group == bindparam("g"), INBOX.c.id.in_(bindparam("ids", expanding=True)))
_PUT = insert(OUTBOX)
_DUE = select(OUTBOX).where(OUTBOX.c.due <= bindparam("now")).order_by(OUTBOX.c.due, OUTBOX.c.seq)
_DUE = _DUE.limit(bindparam("most"))
_NEXT = select(func.min(OUTBOX.c.due)).where(OUTBOX.c.due > bindparam("now"))
_FIRST = select(OUTBOX.c.due, OUTBOX.c.meta).where(OUTBOX.c.due <= bindparam("now"))
_FIRST = _FIRST.order_by(OUTBOX.c.due, OUTBOX.c.seq).limit(1)
#: Of the phases that are no end, so by the index.
_OPEN = select(
    SAGAS.c.phase,
    func.count(),
    func.sum(case((SAGAS.c.late < bindparam("past"), 1), else_=0)),
    func.sum(case(((SAGAS.c.tries >= limits.SAGA_STUCK) & (SAGAS.c.phase != "running"), 1), else_=0)),
)
_OPEN = _OPEN.where(SAGAS.c.saga == bindparam("s"), SAGAS.c.phase.in_(("running", "finishing", "compensating")))
_OPEN = _OPEN.group_by(SAGAS.c.phase)
_SENT = delete(OUTBOX).where(OUTBOX.c.seq.in_(bindparam("seqs", expanding=True)))
_OLD = select(INBOX.c.group, INBOX.c.id).where(INBOX.c.at < bindparam("before")).limit(bindparam("most"))
_PURGE = delete(INBOX).where(INBOX.c.group == bindparam("g"), INBOX.c.id == bindparam("i"))
_LEAD = update(RELAY).where((RELAY.c.holder == bindparam("who")) | (RELAY.c.until < bindparam("now")))
_LEAD = _LEAD.values(holder=bindparam("who"), until=bindparam("then"))
_LEADS = select(RELAY.c.holder)


async def claim(db: Reading, dialect: str, group: str, ids: Sequence[str]) -> None:
    """Note what ``group`` handles; raises `Seen`, or `IntegrityError` where one of many was handled before."""
    rows = [{"group": group, "id": id} for id in ids]
    if len(rows) > 1:
        await db.execute(_CLAIM_ALL, rows)
    elif rows and not (await db.execute(_CLAIM[dialect], rows[0])).rowcount:
        raise Seen(await db.scalar(_REPLY, {"g": group, "i": ids[0]}))


async def answer(db: Reading, group: str, id: str, reply: bytes) -> None:
    """Keep the reply to an event that was claimed."""
    await db.execute(_ANSWER, {"g": group, "i": id, "r": reply})


async def seen(db: Reading, group: str, ids: Sequence[str]) -> set[str]:
    """Return which of ``ids`` the group has claimed."""
    return set(await db.scalars(_SEEN, {"g": group, "ids": list(ids)}))


async def put(db: Reading, now: int, outgoing: Sequence[Outgoing]) -> None:
    """Add to the outbox, in order."""
    if outgoing:
        await db.execute(_PUT, [_row(now, one) for one in outgoing])


def _row(now: int, one: Outgoing) -> dict[str, Any]:
    event, due = one.event, now + int(one.after * 1000) if one.after > 0 else 0
    return {"topic": event.topic, "id": event.id, "data": event.data, "meta": _encode(event.meta), "due": due}


async def due(db: Reading, now: int, most: int) -> tuple[list[Row], float | None]:
    """Return what may leave, in order, and in how many seconds the next one may."""
    found = await db.execute(_DUE, {"now": now, "most": most})
    rows = [Row(r.seq, Event(r.topic, bytes(r.data), r.id, _decode(r.meta)), r.due > 0) for r in found]
    upcoming = None if rows else await db.scalar(_NEXT, {"now": now})
    return rows, None if upcoming is None else (upcoming - now) / 1000


async def sent(db: Reading, rows: Sequence[Row]) -> None:
    """Forget what is in the log."""
    await db.execute(_SENT, {"seqs": [row.seq for row in rows]})


async def outbox_age(db: Reading, now: int) -> float:
    """Return for how many seconds the first event that may leave has waited."""
    first = (await db.execute(_FIRST, {"now": now})).first()
    # What leaves at once has no time of its own but that of its event.
    return 0.0 if first is None else max(0.0, (now - (first.due or _decode(first.meta).ts)) / 1000)


async def sagas(db: Reading, now: int, names: Sequence[str]) -> list[SagaCount]:
    """Count what is open, of each name."""
    found, past = [], now - int(limits.DOCTOR_LATE * 1000)
    for name in names:
        rows = list(await db.execute(_OPEN, {"s": name, "past": past}))
        phases = {row[0]: int(row[1]) for row in rows}
        late, stuck = sum(int(row[2]) for row in rows), sum(int(row[3]) for row in rows)
        found.append(SagaCount(name, **phases, overdue=late, stuck=stuck))
    return found


async def purge(db: Reading, before: int, most: int) -> int:
    """Forget claims that are older than ``before``, at most so many."""
    old = [{"g": row[0], "i": row[1]} for row in await db.execute(_OLD, {"before": before, "most": most})]
    if old:
        await db.execute(_PURGE, old)
    return len(old)


async def lead(db: Reading, dialect: str, now: int, holder: str, ttl: float) -> bool:
    """Take, keep or leave to another the right to empty the outbox."""
    first = {"one": 1, "holder": "", "until": 0}
    if await db.scalar(_LEADS) is None:
        await db.execute(_first(dialect), first)
    taken = await db.execute(_LEAD, {"who": holder, "now": now, "then": now + int(ttl * 1000)})
    return taken.rowcount > 0


def _first(dialect: str) -> Executable:
    kind = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return kind(RELAY).on_conflict_do_nothing()
