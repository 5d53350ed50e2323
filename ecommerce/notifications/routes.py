"""What notifications answers over HTTP: below ``/ecommerce/notifications``."""

from __future__ import annotations

import secrets
import time
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ecommerce import limits
from ecommerce.notifications.tables import CONSENTS, PROMOTIONS
from ecommerce.rows import insert_new
from gateway.sql import reading, transaction
from gateway.web import Refused, answer, body, principal

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Unsubscribe</title>
<h1>No more promotions?</h1><form method="post"><button>Unsubscribe</button></form></html>"""


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TITLE_MOST, pattern=r"^[^\r\n]*$")]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TEXT_MOST)]


class Promote(msgspec.Struct, frozen=True):
    """A promotion on its way; ``after`` is the last who was written to."""

    subject: str
    text: str
    after: str = ""


async def agree(request: Request) -> Response:
    """Whoever it is about says yes to promotions."""
    who = principal(request, "user:{user}")
    async with transaction(request) as db:
        row = {"user": who.name, "token": secrets.token_urlsafe(32), "at": time.time_ns() // 1_000_000}
        await insert_new(db, CONSENTS, row)
    return answer({"consent": True})


async def take_back(request: Request) -> Response:
    who = principal(request, "user:{user}")
    async with transaction(request) as db:
        await db.execute(CONSENTS.delete().where(CONSENTS.c.user == who.name))
    return answer({"consent": False})


async def consent(request: Request) -> Response:
    """The link's token is for who writes the mail alone."""
    who = principal(request, "user:{user}", "service", "operator")
    async with reading(request) as db:
        row = (await db.execute(CONSENTS.select().where(CONSENTS.c.user == request.path_params["user"]))).first()
    said = {"consent": row is not None}
    return answer(said | {"token": row.token} if row is not None and who.kind != "user" else said)


async def unsubscribe(request: Request) -> Response:
    """By the link of a promotion, without a log-in; RFC 8058: a mail program posts, a GET changes nothing."""
    if request.method != "POST":
        return HTMLResponse(_PAGE, headers={"cache-control": "no-store", "referrer-policy": "no-referrer"})
    async with transaction(request) as db:
        await db.execute(CONSENTS.delete().where(CONSENTS.c.token == request.path_params["token"]))
    return answer({"consent": False})


async def promotion(request: Request) -> Response:
    """By operators: 202, and all who agreed are written to, once for each number."""
    principal(request, "operator")
    new, id = await body(request, Promotion), request.path_params["promotion"]
    if len(id) > 64 or not id.replace("-", "").isalnum():
        raise Refused("that is no number of a promotion", "use letters, digits and -, at most 64")
    async with transaction(request) as db:
        if await insert_new(db, PROMOTIONS, {"id": id, "at": time.time_ns() // 1_000_000}):
            db.later(limits.AT_ONCE, f"ecommerce/notifications/{id}/promote", Promote(new.subject, new.text))
    return answer({"promotion": id}, 202)


ROUTES = [
    Route("/people/{user}/consent", agree, methods=["PUT"]),
    Route("/people/{user}/consent", take_back, methods=["DELETE"]),
    Route("/people/{user}/consent", consent, methods=["GET"]),
    Route("/unsubscribe/{token}", unsubscribe, methods=["GET", "POST"]),
    Route("/promotions/{promotion}", promotion, methods=["PUT"]),
]
