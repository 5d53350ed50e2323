"""Rooms in the database: who is in them, and one log each, numbered without a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Select, func, select, text

from chat import limits
from chat.events import Entry, EntryKind, Gone, Notice
from chat.rules import RoomKind, Standing, Target, heir, oldest_repeat, take
from chat.tables import LOG, MEMBERS, PEOPLE, ROOMS
from chat.topics import watched
from gateway.sql import Reading, Transaction

#: What SQLite and PostgreSQL spell alike, and SQLAlchemy in two ways.
_MAKE: Final = text(
    "INSERT INTO rooms (id, kind, name, seq, made) VALUES (:id, :kind, :name, 0, :made) ON CONFLICT DO NOTHING"
)
_PERSON: Final = text("INSERT INTO people (member, name, full_at) VALUES (:member, '', 0) ON CONFLICT DO NOTHING")
_NOBODY: Any = {"role": "none", "joined": 0, "read_seq": 0, "full_at": 0, "typed_at": 0}


class Place(msgspec.Struct, frozen=True):
    """A room as one user has it."""

    id: str
    name: str
    seq: int
    standing: Standing
    #: Up to where the user has read; when the user's bucket is full again.
    read_seq: int
    full_at: int


async def find(db: Reading, room: str, user: str, *, lock: bool = False) -> Place | None:
    """Return the room as ``user`` has it; ``lock``: nobody else writes there until the transaction ends."""
    asked = ROOMS.select().where(ROOMS.c.id == room)
    row = (await db.execute(asked.with_for_update() if lock else asked)).first()
    if row is None:
        return None
    its = MEMBERS.c.room == room, MEMBERS.c.member == user
    member = (await db.execute(MEMBERS.select().where(*its))).first()
    return place({**row._mapping, **(_NOBODY if member is None else member._mapping)})


def place(row: Mapping[str, Any]) -> Place:
    """Return what a room's row and a member's say together."""
    standing = Standing(row["kind"], row["role"])
    return Place(row["id"], row["name"], row["seq"], standing, row["read_seq"], row["full_at"])


async def make(db: Transaction, room: str, kind: RoomKind, name: str, now: int) -> bool:
    """Make a room; False where it is there."""
    return bool((await db.execute(_MAKE, {"id": room, "kind": kind, "name": name, "made": now})).rowcount)


async def call(db: Transaction, user: str, name: str) -> None:
    """Keep what ``user`` wants to be called."""
    await db.execute(_PERSON, {"member": user})
    await db.execute(PEOPLE.update().where(PEOPLE.c.member == user).values(name=name))


async def append(
    db: Transaction,
    room: str,
    kind: EntryKind,
    author: str,
    at: int,
    *,
    id: str = "",
    says: str | None = None,
    of: int = 0,
    member: str = "",
) -> Entry:
    """Give the next number of ``room`` to what happened, keep it and tell it. What is not committed leaves no gap."""
    seq = await db.scalar(ROOMS.update().where(ROOMS.c.id == room).values(seq=ROOMS.c.seq + 1).returning(ROOMS.c.seq))
    entry = Entry(seq, kind, author, at, id, says, of, member)
    await db.execute(LOG.insert(), {"room": room, **msgspec.structs.asdict(entry)})
    db.emit(watched(room), entry)
    return entry


async def repeated(db: Reading, room: str, kind: EntryKind, author: str, id: str, now: int) -> Any | None:
    """Return what ``author`` did of the same ``kind`` with the same ``id`` before."""
    same = (LOG.c.room == room, LOG.c.author == author, LOG.c.id == id, LOG.c.kind == kind)
    wanted = select(LOG.c.seq, LOG.c.at).where(*same, LOG.c.at >= oldest_repeat(now))
    return (await db.execute(wanted.order_by(LOG.c.seq).limit(1))).first()


async def pace(db: Transaction, user: str, now: int) -> int:
    """Count that ``user`` made a room, or somebody a member; return the milliseconds to wait before, 0: it may be."""
    await db.execute(_PERSON, {"member": user})
    mine = PEOPLE.c.member == user
    full_at = await db.scalar(select(PEOPLE.c.full_at).where(mine).with_for_update())
    full, wait = take(full_at, now, limits.MOVES, limits.MOVE_EVERY)
    await db.execute(PEOPLE.update().where(mine).values(full_at=full))
    return wait


async def target(db: Reading, room: str, seq: int) -> Target | None:
    """Return what an edit or a deletion is about."""
    row = (await db.execute(LOG.select().where(LOG.c.room == room, LOG.c.seq == seq))).first()
    return None if row is None else Target(row.kind, row.author, row.deleted)


async def change(db: Transaction, room: str, entry: Entry) -> None:
    """Make message ``entry.of`` what it is since ``entry``; what a deleted one said is nowhere any more."""
    here = LOG.c.room == room
    if entry.kind == "edited":
        values = {"text": entry.text, "edited": entry.seq}
    else:
        values = {"text": None, "deleted": True}
        await db.execute(LOG.update().where(here, LOG.c.of == entry.of).values(text=None))
    await db.execute(LOG.update().where(here, LOG.c.seq == entry.of).values(values))


async def enter(db: Transaction, room: str, user: str, role: str, now: int, read_seq: int) -> None:
    """Make ``user`` a member who has read up to ``read_seq``; who was there before keeps the bucket."""
    here = MEMBERS.c.room == room, MEMBERS.c.member == user
    row = {"role": role, "joined": now, "read_seq": read_seq}
    if not (await db.execute(MEMBERS.update().where(*here).values(row))).rowcount:
        await db.execute(MEMBERS.insert(), {"room": room, "member": user, **row, "full_at": 0, "typed_at": 0})
    tell(db, user, Notice("joined", room, read_seq))


async def depart(db: Transaction, place: Place, user: str, by: str, now: int) -> None:
    """End a membership, and soon the subscriptions; a room whose owner goes belongs to who is there longest."""
    room = place.id
    await append(db, room, "left", by, now, member=user)
    await put(db, room, user, role="none")
    if place.standing.role == "owner":
        rows = (await db.execute(select(MEMBERS.c.joined, MEMBERS.c.member).where(*_there(room)))).all()
        if (next_one := heir([(row.joined, row.member) for row in rows])) is not None:
            await put(db, room, next_one, role="owner")
    tell(db, user, Notice("left", room))
    # A service hears of its own only what it delays.
    db.later(0.001, watched(room, "gone"), Gone(user))


async def forget(db: Transaction, user: str, now: int) -> bool:
    """Take ``user`` out of a page of rooms, and say whether that was the last: then no row names the user but what was
    said, under an id that means nobody any more."""
    found = await rooms_of(db, user, "", limits.FORGET_PAGE)
    for one in found:  # in the order of their ids: who locks several rooms does so in this one
        locked = await find(db, one.id, user, lock=True)
        if locked is not None and locked.standing.role != "none":
            await depart(db, locked, user, user, now)
    if len(found) == limits.FORGET_PAGE:
        return False
    for table in (MEMBERS, PEOPLE):
        await db.execute(table.delete().where(table.c.member == user))
    return True


async def put(db: Transaction, room: str, user: str, **values: object) -> None:
    """Change a member's row."""
    await db.execute(MEMBERS.update().where(MEMBERS.c.room == room, MEMBERS.c.member == user).values(values))


async def unread(db: Reading, room: str, user: str, read_seq: int) -> int:
    """Count messages of others behind ``read_seq``, deleted ones not, up to ``limits.UNREAD_MOST``."""
    theirs = (LOG.c.kind == "message", LOG.c.author != user, LOG.c.deleted.is_(False))
    found = select(LOG.c.seq).where(LOG.c.room == room, LOG.c.seq > read_seq, *theirs).limit(limits.UNREAD_MOST)
    return int(await db.scalar(select(func.count()).select_from(found.subquery())))


async def history(db: Reading, room: str, after: int | None, most: int, *, back: bool) -> list[Entry]:
    """Return at most ``most`` entries behind ``after``, or before it, each as it is now; None: from the end."""
    wanted = LOG.select().where(LOG.c.room == room).order_by(LOG.c.seq.desc() if back else LOG.c.seq).limit(most)
    if after is not None:
        wanted = wanted.where(LOG.c.seq < after if back else LOG.c.seq > after)
    names = Entry.__struct_fields__
    return [Entry(**{name: getattr(row, name) for name in names}) for row in (await db.execute(wanted)).all()]


async def members(db: Reading, room: str, after: str, most: int) -> Sequence[Any]:
    named = MEMBERS.outerjoin(PEOPLE, PEOPLE.c.member == MEMBERS.c.member)
    wanted: Select[Any] = select(MEMBERS, PEOPLE.c.name).select_from(named)
    wanted = wanted.where(*_there(room), MEMBERS.c.member > after)
    return (await db.execute(wanted.order_by(MEMBERS.c.member).limit(most))).all()


async def rooms_of(db: Reading, user: str, after: str, most: int) -> list[Place]:
    mine = (MEMBERS.c.member == user, MEMBERS.c.role != "none", ROOMS.c.id > after)
    joined = ROOMS.join(MEMBERS, MEMBERS.c.room == ROOMS.c.id)
    of_member = MEMBERS.c.role, MEMBERS.c.read_seq, MEMBERS.c.full_at
    wanted: Select[Any] = select(ROOMS, *of_member).select_from(joined).where(*mine)
    return [place({**row._mapping}) for row in (await db.execute(wanted.order_by(ROOMS.c.id).limit(most))).all()]


async def public_rooms(db: Reading, after: str, most: int) -> Sequence[Any]:
    wanted = ROOMS.select().where(ROOMS.c.kind == "public", ROOMS.c.id > after).order_by(ROOMS.c.id).limit(most)
    return (await db.execute(wanted)).all()


async def is_full(db: Reading, room: str, user: str) -> bool:
    """Say whether the room has all the members it may, or ``user`` all the rooms."""
    of_user = (MEMBERS.c.member == user, MEMBERS.c.role != "none")
    for bound, mine in ((limits.MEMBERS_MOST, _there(room)), (limits.ROOMS_MOST, of_user)):
        if int(await db.scalar(select(func.count()).select_from(MEMBERS).where(*mine))) >= bound:
            return True
    return False


def tell(db: Transaction, user: str, notice: Notice) -> None:
    """Tell all devices of ``user``."""
    db.emit(f"chat/users/{user}/notices", notice)


def _there(room: str) -> tuple[ColumnElement[bool], ...]:
    return MEMBERS.c.room == room, MEMBERS.c.role != "none"
