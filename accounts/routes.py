"""What accounts answers over HTTP: below ``/accounts/users``."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accounts import forms, limits
from accounts.families import Known, judge
from accounts.keys import access_token, keys
from accounts.logins import begin, charge, clear, digest, end, find, rotate
from accounts.passwords import PASSWORDS
from accounts.settings import settings
from accounts.tables import FAMILIES, REFRESHES, USERS
from gateway import GatewayError
from gateway.sql import reading, transaction
from gateway.web import NotAvailable, Principal, Refused, answer, body, principal


class WrongPassword(GatewayError):
    """A login that does not tell what was wrong with it."""

    code, status, whose = "wrong_password", 401, "caller"


class NotAnAccount(Refused):
    """What nobody can register as."""

    code, status = "bad_account", 422


class NewAccount(msgspec.Struct, forbid_unknown_fields=True):
    mail: str
    password: str
    name: str
    phone: str = ""


class Login(msgspec.Struct, forbid_unknown_fields=True):
    mail: str
    password: str


class Refresh(msgspec.Struct, forbid_unknown_fields=True):
    refresh: str


class NewRole(msgspec.Struct, forbid_unknown_fields=True):
    role: forms.Role


class Proof(msgspec.Struct, forbid_unknown_fields=True):
    password: str


async def register(request: Request) -> Response:
    """202, whether or not the address had an account: who asks does not learn whose it is."""
    new = await body(request, NewAccount)
    mail = forms.mail(new.mail)
    if why := forms.fault(new.password, new.name, new.phone) if mail else "the address is none":
        raise NotAnAccount(why, "mend it")
    row: dict[str, object] = {
        "id": f"u{secrets.token_hex(10)}",
        "mail": mail,
        "name": new.name.strip(),
        "phone": new.phone,
    }
    row |= {"password": await PASSWORDS.hash(new.password), "role": "customer", "created": _now()}
    async with transaction(request) as db:
        if await db.scalar(USERS.select().with_only_columns(USERS.c.id).where(USERS.c.mail == mail)) is None:
            await db.execute(USERS.insert(), row)
            db.emit(f"accounts/users/{row['id']}/registered", {})
    return answer({"accepted": True}, 202)


async def login(request: Request) -> Response:
    """Tokens, or 401 that says no more; 429 after too many."""
    asked = await body(request, Login)
    mail, now = forms.mail(asked.mail), _now()
    async with transaction(request) as db:
        # Counted before it is tried: a thousand guesses at one moment are a thousand.
        tried = await charge(db, mail, _place(request), now)
        known = await find(db, USERS.c.mail == mail)
    if not await PASSWORDS.fits(asked.password, known.password if known else None) or known is None:
        raise WrongPassword("the address or the password is wrong", "try again, or register")
    async with transaction(request) as db:
        await clear(db, tried, now)
        refresh = await begin(db, known.id, now)
    return _tokens(known, refresh)


async def renew(request: Request) -> Response:
    """New tokens for a refresh token, which is good once."""
    hash, now = digest((await body(request, Refresh)).refresh), _now()
    fresh, user = "", None
    async with transaction(request) as db:
        joined = (
            REFRESHES.join(FAMILIES)
            .select()
            .with_only_columns(
                REFRESHES.c.family, REFRESHES.c.used, REFRESHES.c.expires, FAMILIES.c.ended, FAMILIES.c.user
            )
        )
        row = (await db.execute(joined.where(REFRESHES.c.hash == hash).with_for_update())).first()
        verdict = judge(None if row is None else Known(row.used, row.expires, row.ended), now)
        if row is not None and verdict == "reuse":
            await end(db, FAMILIES.c.id == row.family, now)
        if row is not None and verdict == "rotate":
            fresh, user = await rotate(db, hash, row.family, now), await find(db, USERS.c.id == row.user)
    if user is None:  # outside the block, or the end of the family would be undone
        raise WrongPassword("the refresh token is not good, or not any more", "log in again")
    return _tokens(user, fresh)


async def logout(request: Request) -> Response:
    hash = digest((await body(request, Refresh)).refresh)
    async with transaction(request) as db:
        family = await db.scalar(
            REFRESHES.select().with_only_columns(REFRESHES.c.family).where(REFRESHES.c.hash == hash)
        )
        await end(db, FAMILIES.c.id == family, _now())
    return answer({"ended": True})


async def me(request: Request) -> Response:
    who = principal(request)
    async with reading(request) as db:
        user = await find(db, USERS.c.id == who.name)
    return answer(_contact(user, who) | {"role": user.role})


async def contact(request: Request) -> Response:
    """How to reach somebody: for services that write to people, and for operators."""
    who = principal(request, "service", "operator")
    async with reading(request) as db:
        user = await find(db, USERS.c.id == request.path_params["user"])
    return answer(_contact(user, who))


async def erase(request: Request) -> Response:
    """Forget who somebody was. The id remains, so that orders and messages stay whole, and means nobody."""
    who, proof, now = principal(request), await body(request, Proof), _now()
    async with transaction(request) as db:
        await charge(db, who.name, _place(request), now)
        user = await find(db, USERS.c.id == who.name)
    if not await PASSWORDS.fits(proof.password, user.password if user else None):
        raise WrongPassword("the password is wrong", "try again")
    async with transaction(request) as db:
        gone = {"mail": None, "name": "", "phone": "", "password": "", "erased": now}
        await db.execute(USERS.update().where(USERS.c.id == who.name, USERS.c.erased.is_(None)).values(gone))
        await end(db, FAMILIES.c.user == who.name, now)
        db.emit(f"accounts/users/{who.name}/erased", {})
    return answer({"erased": True})


async def set_role(request: Request) -> Response:
    """By operators. Tokens that are out keep the old role until they end; nothing is refreshed in it."""
    principal(request, "operator")
    role, user = (await body(request, NewRole)).role, request.path_params["user"]
    async with transaction(request) as db:
        changed = USERS.update().where(USERS.c.id == user, USERS.c.erased.is_(None)).values(role=role)
        if not (await db.execute(changed)).rowcount:
            raise NotAvailable("there is no such account", "look at its id")
    return answer({"user": user, "role": role})


async def jwks(request: Request) -> Response:
    """Public keys (RFC 7517, 5): what ``[[tokens.keys]] jwks`` of the gateway asks."""
    return answer({"keys": [key.jwk() for key in keys(settings().keys)]}, headers={"cache-control": "max-age=60"})


def _tokens(user: Any, refresh: str) -> Response:
    role, now = user.role, time.time()
    access = access_token(settings(), user.id, role, forms.principal(role), now, limits.ACCESS_LIFE)
    return answer(
        {"user": user.id, "role": role, "access": access, "expires_in": limits.ACCESS_LIFE, "refresh": refresh}
    )


def _contact(user: Any, who: Principal) -> dict[str, str]:
    if user is None:
        raise NotAvailable(f"there is no such account for {who}", "it may be erased")
    return {"user": user.id, "mail": user.mail, "name": user.name, "phone": user.phone}


def _place(request: Request) -> str:
    # The edge's own word: it drops what a client says of itself.
    return request.headers.get("x-forwarded-for", "")


def _now() -> int:
    return time.time_ns() // 1_000_000


ROUTES = [
    Route("/register", register, methods=["POST"]),
    Route("/login", login, methods=["POST"]),
    Route("/refresh", renew, methods=["POST"]),
    Route("/logout", logout, methods=["POST"]),
    Route("/me", me, methods=["GET"]),
    Route("/me/erase", erase, methods=["POST"]),
    Route("/people/{user}/contact", contact, methods=["GET"]),
    Route("/people/{user}/role", set_role, methods=["PUT"]),
    Route("/.well-known/jwks.json", jwks, methods=["GET"]),
]
