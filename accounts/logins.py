"""Logins in the database: what is counted, families of refresh tokens, and what is over and removed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, delete, select

from accounts import limits
from accounts.tables import FAILURES, FAMILIES, REFRESHES, USERS
from accounts.throttle import counted, counters, wait
from gateway import GatewayError
from gateway.sql import Reading, Transaction


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
        row = (await db.execute(FAILURES.select().where(FAILURES.c.counter == counter).with_for_update())).first()
        since = 0.0 if row is None else (now - row.last) / 1000
        if row is not None and (pause := wait(row.failures, since, free)):
            raise TooMany("too many failed logins", "wait", retry_after=pause)
        values = {"failures": 1 if row is None else counted(row.failures, since), "last": now}
        if row is None:
            await db.execute(FAILURES.insert(), {"counter": counter, **values})
        else:
            await db.execute(FAILURES.update().where(FAILURES.c.counter == counter).values(values))
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
    await db.execute(delete(FAILURES).where(FAILURES.c.counter.in_(old.limit(limits.PURGE_PAGE))))
    over = select(REFRESHES.c.hash).where(REFRESHES.c.expires < now)
    await db.execute(delete(REFRESHES).where(REFRESHES.c.hash.in_(over.limit(limits.PURGE_PAGE))))
    # Of a family that is over, all tokens are; some may wait for the next page.
    left = select(REFRESHES.c.family).where(REFRESHES.c.family == FAMILIES.c.id).exists()
    empty = select(FAMILIES.c.id).where(FAMILIES.c.expires < now, ~left)
    await db.execute(delete(FAMILIES).where(FAMILIES.c.id.in_(empty.limit(limits.PURGE_PAGE))))


async def begin(db: Transaction, user: str, now: int) -> str:
    """Begin a family, and return its first refresh token."""
    family = secrets.token_hex(16)
    await db.execute(FAMILIES.insert(), {"id": family, "user": user, "expires": _expires(now)})
    return await _issue(db, family, now)


async def rotate(db: Transaction, hash: str, family: str, now: int) -> str:
    """Use the token whose digest is ``hash``, and return the next."""
    await db.execute(REFRESHES.update().where(REFRESHES.c.hash == hash).values(used=now))
    await db.execute(FAMILIES.update().where(FAMILIES.c.id == family).values(expires=_expires(now)))
    return await _issue(db, family, now)


async def end(db: Transaction, which: ColumnElement[bool], now: int) -> None:
    """End families: none of their tokens is good any more."""
    await db.execute(FAMILIES.update().where(which, FAMILIES.c.ended.is_(None)).values(ended=now))


async def _issue(db: Transaction, family: str, now: int) -> str:
    token = secrets.token_urlsafe(32)
    row = {"hash": digest(token), "family": family, "expires": _expires(now)}
    await db.execute(REFRESHES.insert(), row)
    return token


def _expires(now: int) -> int:
    return now + limits.REFRESH_LIFE * 1000
