"""The service ``chat.rooms``: judges what is written, numbers it, keeps it and tells it, in one transaction."""

from __future__ import annotations

from chat import limits
from chat.events import Answer, Delete, Edit, EntryKind, Forget, Gone, Notice, Send
from chat.rooms import append, change, find, forget, put, repeated, target, tell
from chat.routes import ROUTES
from chat.rules import is_name, refusal, take
from chat.tables import TABLES
from chat.topics import WATCHED, watched
from gateway import Context, Service
from gateway.sql import Database
from gateway.web import ask

service = Service(
    "rooms",
    database=Database(tables=TABLES, migrations="chat.migrations"),
    emits=["chat/rooms/{room}/messages", "chat/rooms/{room}/typing", "chat/users/{user}/notices"],
    delays=["chat/rooms/{room}/gone", "chat/users/{user}/forget"],
    routes=ROUTES,
    asks=["api"],
)


@service.on("chat/rooms/{room}/send")
async def send(what: Send, context: Context) -> Answer:
    return await _write(context, "message", what.id, what.text)


@service.on("chat/rooms/{room}/edit")
async def edit(what: Edit, context: Context) -> Answer:
    return await _write(context, "edited", what.id, what.text, what.seq)


@service.on("chat/rooms/{room}/delete")
async def delete(what: Delete, context: Context) -> Answer:
    return await _write(context, "deleted", what.id, of=what.seq)


async def _write(context: Context, kind: EntryKind, id: str, text: str | None = None, of: int = 0) -> Answer:
    """Do it, and answer its number; the first answer again for the same ``id`` and ``kind``; or why not.

    A refusal is an answer, and a notice for who did not ask for one: a dead letter is for operators, and nobody can
    mend somebody else's haste.
    """
    db, room, meta = await context.transaction(), context.variables["room"], context.event.meta
    # Only users may publish here. The time is the door's: what waited for this service was not said all at once.
    who, now, wait = meta.producer.removeprefix("user:"), meta.ts, 0
    place = await find(db, room, who, lock=True)
    known = await repeated(db, room, kind, who, id, now)
    if known is not None:
        return Answer(known.seq, known.at)
    about = await target(db, room, of) if of else None
    why = refusal(who, place.standing if place else None, of > 0, about)
    if why is None and place is not None:
        full, wait = take(place.full_at, now, limits.BURST, limits.EVERY)
        if not wait:
            await put(db, room, who, full_at=full)
            entry = await append(db, room, kind, who, now, id=id, says=text, of=of)
            if of:
                await change(db, room, entry)
            return Answer(entry.seq, entry.at)
    error, pause = why or "too_fast", wait / 1000
    if is_name(who):
        tell(db, who, Notice("refused", room, id=id, error=error, retry_after=pause))
    return Answer(error=error, retry_after=pause)


@service.on("chat/rooms/{room}/gone")
async def gone(who: Gone, context: Context) -> None:
    """Cut who left from what is live, on every device; the token that is left to them ends by itself."""
    room = context.variables["room"]
    for name in WATCHED:
        await ask(context, "POST", "/api/unsubscribe", {"user": who.user, "channel": watched(room, name)})
    db = await context.transaction()
    place = await find(db, room, who.user)
    if place is not None and place.standing.may("write"):
        # Let in again meanwhile, and maybe cut off from what is theirs: an SDK does not come back by itself.
        tell(db, who.user, Notice("joined", room, place.read_seq))


@service.on("accounts/users/{user}/erased", optional=True)
async def erased(gone: Forget, context: Context) -> None:
    await forget_more(gone, context)


@service.on("chat/users/{user}/forget")
async def forget_more(gone: Forget, context: Context) -> None:
    """Take who has no account any more out of every room, a page of them at a time."""
    db, user = await context.transaction(), context.variables["user"]
    if not await forget(db, user, context.event.meta.ts):
        db.later(0.001, f"chat/users/{user}/forget", Forget())
