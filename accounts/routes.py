"""What accounts answers over HTTP: below ``/accounts/users``."""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accounts import forms, limits
from accounts.families import judge
from accounts.keys import access_token, keys
from accounts.logins import TooMany, begin, charge, clear, digest, end, find, known, rotate
from accounts.passwords import PASSWORDS
from accounts.settings import settings
from accounts.tables import FAMILIES, REFRESHES, USERS
from gateway import GatewayError
from gateway.sql import reading, transaction, upsert
from gateway.web import NotAvailable, Principal, Refused, answer, operation, principal

#: Kinds of whoever has an account here: a device or a service of the same name is somebody else.
PEOPLE = ("user", "viewer", "operator")


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


class Accepted(msgspec.Struct, frozen=True):
    accepted: Literal[True] = True


class Ended(msgspec.Struct, frozen=True):
    ended: Literal[True] = True


class Erased(msgspec.Struct, frozen=True):
    erased: Literal[True] = True


class Tokens(msgspec.Struct, frozen=True):
    """What a login gives: ``access`` for ``expires_in`` seconds, ``refresh`` once."""

    user: str
    role: forms.Role
    access: str
    expires_in: int
    refresh: str


class Contact(msgspec.Struct, frozen=True):
    user: str
    mail: str
    name: str
    phone: str


class Me(Contact, frozen=True):
    role: forms.Role


class HasRole(msgspec.Struct, frozen=True):
    user: str
    role: forms.Role


class Keys(msgspec.Struct, frozen=True):
    """A JWK Set (RFC 7517, 5) of Ed25519 keys (RFC 8037)."""

    keys: list[dict[str, str]]


@operation(
    "Register.",
    grants=["anyone"],
    status=202,
    errors=[NotAnAccount],
    description="202, whether or not the address had an account: who asks does not learn whose it is.",
)
async def register(request: Request, body: NewAccount) -> Accepted:
    mail = forms.mail(body.mail)
    if why := forms.fault(body.password, body.name, body.phone) if mail else "the address is none":
        raise NotAnAccount(why, "mend it")
    row: dict[str, object] = {
        "id": f"u{secrets.token_hex(10)}",
        "mail": mail,
        "name": body.name.strip(),
        "phone": body.phone,
    }
    row |= {"password": await PASSWORDS.hash(body.password), "role": "customer", "created": _now()}
    async with transaction(request) as db:
        # One statement: between a look and an insert, somebody else may take the address.
        if (await db.execute(upsert(USERS, columns=tuple(row)), row)).rowcount:
            db.emit(f"accounts/users/{row['id']}/registered", {})
    return Accepted()


@operation("Log in.", grants=["anyone"], errors=[WrongPassword, TooMany])
async def login(request: Request, body: Login) -> Tokens:
    mail, now = forms.mail(body.mail), _now()
    async with transaction(request) as db:
        # Counted before it is tried: a thousand guesses at one moment are a thousand.
        tried = await charge(db, mail, _place(request), now)
        user = await find(db, USERS.c.mail == mail)
    if not await PASSWORDS.fits(body.password, user.password if user else None) or user is None:
        raise WrongPassword("the address or the password is wrong", "try again, or register")
    async with transaction(request) as db:
        await clear(db, tried, now)
        refresh = await begin(db, user.id, now)
    return _tokens(user, refresh)


@operation(
    "New tokens for a refresh token, which is good once; and again for a moment, until one of the new is used.",
    grants=["anyone"],
    errors=[WrongPassword],
)
async def renew(request: Request, body: Refresh) -> Tokens:
    hash, now = digest(body.refresh), _now()
    fresh, user = "", None
    async with transaction(request) as db:
        row, found = await known(db, hash)
        match judge(found, now):
            case "reuse":
                await end(db, FAMILIES.c.id == row.family, now)
            case "rotate" | "again":
                fresh, user = await rotate(db, hash, row.family, now), await find(db, USERS.c.id == row.user)
    if user is None:  # outside the block, or the end of the family would be undone
        raise WrongPassword("the refresh token is not good, or not any more", "log in again")
    return _tokens(user, fresh)


@operation("Log out: the refresh tokens of this login are over.", grants=["anyone"])
async def logout(request: Request, body: Refresh) -> Ended:
    hash = digest(body.refresh)
    async with transaction(request) as db:
        family = await db.scalar(
            REFRESHES.select().with_only_columns(REFRESHES.c.family).where(REFRESHES.c.hash == hash)
        )
        await end(db, FAMILIES.c.id == family, _now())
    return Ended()


@operation("Who one is.", grants=PEOPLE, errors=[NotAvailable])
async def me(request: Request) -> Me:
    who = principal(request)
    async with reading(request) as db:
        user = await find(db, USERS.c.id == who.name)
    return Me(**msgspec.structs.asdict(_contact(user, who)), role=user.role)


@operation("How to reach somebody.", grants=["service:ecommerce.notifications", "operator"], errors=[NotAvailable])
async def contact(request: Request) -> Contact:
    who = principal(request)
    async with reading(request) as db:
        user = await find(db, USERS.c.id == request.path_params["user"])
    return _contact(user, who)


@operation(
    "Be forgotten.",
    grants=PEOPLE,
    errors=[WrongPassword, TooMany],
    description="The id remains, so that orders and messages stay whole, and means nobody.",
)
async def erase(request: Request, body: Proof) -> Erased:
    who, now = principal(request), _now()
    async with transaction(request) as db:
        await charge(db, who.name, _place(request), now)
        user = await find(db, USERS.c.id == who.name)
    if not await PASSWORDS.fits(body.password, user.password if user else None):
        raise WrongPassword("the password is wrong", "try again")
    async with transaction(request) as db:
        gone = {"mail": None, "name": "", "phone": "", "password": "", "erased": now}
        await db.execute(USERS.update().where(USERS.c.id == who.name, USERS.c.erased.is_(None)).values(gone))
        await end(db, FAMILIES.c.user == who.name, now)
        db.emit(f"accounts/users/{who.name}/erased", {})
    return Erased()


@operation(
    "Give somebody a role.",
    grants=["operator"],
    errors=[NotAvailable],
    description="Tokens that are out keep the old role until they end; nothing is refreshed in it.",
)
async def set_role(request: Request, body: NewRole) -> HasRole:
    role, user = body.role, request.path_params["user"]
    async with transaction(request) as db:
        changed = USERS.update().where(USERS.c.id == user, USERS.c.erased.is_(None)).values(role=role)
        if not (await db.execute(changed)).rowcount:
            raise NotAvailable("there is no such account", "look at its id")
    return HasRole(user, role)


@operation("Public keys: what `[[tokens.keys]] jwks` of the gateway asks.", grants=["anyone"], answers={200: Keys})
async def jwks(request: Request) -> Response:
    return answer(Keys([key.jwk() for key in keys(settings().keys)]), headers={"cache-control": "max-age=60"})


def _tokens(user: Any, refresh: str) -> Tokens:
    role, now = user.role, time.time()
    access = access_token(settings(), user.id, role, forms.principal(role), now, limits.ACCESS_LIFE)
    return Tokens(user.id, role, access, limits.ACCESS_LIFE, refresh)


def _contact(user: Any, who: Principal) -> Contact:
    if user is None:
        raise NotAvailable(f"there is no such account for {who}", "it may be erased")
    return Contact(user.id, user.mail, user.name, user.phone)


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
