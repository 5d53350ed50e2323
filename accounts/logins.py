"""Logins in the database: what is counted, families of refresh tokens, and what is over and removed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, select

from accounts import limits
from accounts.families import Known
from accounts.tables import FAILURES, FAMILIES, REFRESHES, USERS
from accounts.throttle import counted, counters, wait
from gateway import GatewayError
from gateway.sql import Reading, Transaction, upsert

_LOCKED = upsert(FAILURES, '"last" = "failures"."last"')


class TooMany(GatewayError):
    """Too many failed logins."""

    code, status, retry, whose = "too_many", 429, True, "caller"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def find(db: Reading, where: ColumnElement[bool]) -> Any:
    """Return the row of an account that is not erased; None where there is none."""
    return (await db.execute(USERS.select().where(where, USERS.c.erased.is_(None)))).first()


async def charge(db: Transaction, mail: str, place: str, now: int) -> list[str]:
    """Count a try as failed, and return under which names; raises :class:`TooMany`."""
    named = counters(mail, place)
    for counter, free in sorted(named.items()):
        here = FAILURES.c.counter == counter
        # Made or locked by one statement: of two first tries at once, the second waits for the first.
        await db.execute(_LOCKED, {"counter": counter, "failures": 0, "last": now})
        row = (await db.execute(FAILURES.select().where(here))).one()
        since = (now - row.last) / 1000
        if pause := wait(row.failures, since, free):
            raise TooMany("too many failed logins", "wait", retry_after=pause)
        await db.execute(FAILURES.update().where(here).values(failures=counted(row.failures, since), last=now))
    return sorted(named)


async def clear(db: Transaction, tried: Iterable[str], now: int) -> None:
    """Take a try back that was none, and remove a page of what is over."""
    for counter in tried:
        where = FAILURES.c.counter == counter
        if counter.startswith("place:"):  # others fail from there
            await db.execute(FAILURES.update().where(where).values(failures=FAILURES.c.failures - 1))
        else:
            await db.execute(FAILURES.delete().where(where))
    old = select(FAILURES.c.counter).where(FAILURES.c.last < now - limits.FAILURES_KEPT * 1000)
    await db.execute(delete(FAILURES).where(FAILURES.c.counter.in_(_page(old))))
    over = select(REFRESHES.c.hash).where(REFRESHES.c.expires < now)
    await db.execute(delete(REFRESHES).where(REFRESHES.c.hash.in_(_page(over))))
    # Of a family that is over, all tokens are; some may wait for the next page.
    left = select(REFRESHES.c.family).where(REFRESHES.c.family == FAMILIES.c.id).exists()
    empty = select(FAMILIES.c.id).where(FAMILIES.c.expires < now, ~left)
    await db.execute(delete(FAMILIES).where(FAMILIES.c.id.in_(_page(empty))))


def _page(over: Select[tuple[str]]) -> Select[tuple[str]]:
    # What another locks, a login that is being tried or that purges too, is left: waiting for it both ways would end
    # in a deadlock.
    return over.limit(limits.PURGE_PAGE).with_for_update(skip_locked=True)


async def begin(db: Transaction, user: str, now: int) -> str:
    """Begin a family, and return its first refresh token."""
    family = secrets.token_hex(16)
    await db.execute(FAMILIES.insert(), {"id": family, "user": user, "expires": _expires(now)})
    return await _issue(db, family, now)


async def known(db: Transaction, hash: str) -> tuple[Any, Known | None]:
    """Return the row of the token whose digest is ``hash``, locked, and what is known of it."""
    joined = REFRESHES.join(FAMILIES).select().where(REFRESHES.c.hash == hash).with_for_update()
    wanted = (REFRESHES.c.family, REFRESHES.c.used, REFRESHES.c.expires, FAMILIES.c.ended, FAMILIES.c.user)
    row = (await db.execute(joined.with_only_columns(*wanted))).first()
    if row is None:
        return None, None
    successors = select(func.count(), func.count(REFRESHES.c.used)).where(REFRESHES.c.parent == hash)
    given, given_used = (await db.execute(successors)).one()
    return row, Known(row.used, row.expires, row.ended, given, given_used)


async def rotate(db: Transaction, hash: str, family: str, now: int) -> str:
    """Use the token whose digest is ``hash``, and return the next, or another next."""
    first = REFRESHES.c.hash == hash, REFRESHES.c.used.is_(None)
    await db.execute(REFRESHES.update().where(*first).values(used=now))
    await db.execute(FAMILIES.update().where(FAMILIES.c.id == family).values(expires=_expires(now)))
    return await _issue(db, family, now, hash)


async def end(db: Transaction, which: ColumnElement[bool], now: int) -> None:
    """End families: none of their tokens is good any more."""
    await db.execute(FAMILIES.update().where(which, FAMILIES.c.ended.is_(None)).values(ended=now))


async def _issue(db: Transaction, family: str, now: int, parent: str | None = None) -> str:
    token = secrets.token_urlsafe(32)
    row = {"hash": digest(token), "family": family, "parent": parent, "expires": _expires(now)}
    await db.execute(REFRESHES.insert(), row)
    return token


def _expires(now: int) -> int:
    return now + limits.REFRESH_LIFE * 1000
