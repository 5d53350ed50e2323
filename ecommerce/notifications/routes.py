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
from ecommerce.notifications.mail import NoAddress, public
from ecommerce.notifications.tables import CONSENTS, PROMOTIONS
from ecommerce.rows import insert_new
from ecommerce.settings import settings
from gateway.sql import reading, transaction
from gateway.web import Refused, operation, origin, principal

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Unsubscribe</title>
<h1>No more promotions?</h1><form method="post"><button>Unsubscribe</button></form></html>"""


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TITLE_MOST, pattern=r"^[^\r\n]*(?!\n)$")]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TEXT_MOST)]


class Promote(msgspec.Struct, frozen=True):
    """A promotion on its way; ``after`` is the last who was written to."""

    subject: str
    text: str
    after: str = ""


class Consent(msgspec.Struct, frozen=True, omit_defaults=True):
    consent: bool
    #: Of the link that takes it back; for who writes the mail alone.
    token: str = ""


class Promoted(msgspec.Struct, frozen=True):
    promotion: str


class NoNumber(Refused):
    """A number of a promotion that is none."""

    code = "bad_number"


@operation("Say yes to promotions.", grants=["user:{user}"])
async def agree(request: Request) -> Consent:
    who = principal(request)
    async with transaction(request) as db:
        row = {"user": who.name, "token": secrets.token_urlsafe(32), "at": time.time_ns() // 1_000_000}
        await insert_new(db, CONSENTS, row)
    return Consent(consent=True)


@operation("Take back that yes.", grants=["user:{user}"])
async def take_back(request: Request) -> Consent:
    who = principal(request)
    async with transaction(request) as db:
        await db.execute(CONSENTS.delete().where(CONSENTS.c.user == who.name))
    return Consent(consent=False)


@operation("Whether somebody wants promotions.", grants=["user:{user}", "service:ecommerce.notifications", "operator"])
async def consent(request: Request) -> Consent:
    who = principal(request)
    async with reading(request) as db:
        row = (await db.execute(CONSENTS.select().where(CONSENTS.c.user == request.path_params["user"]))).first()
    return Consent(row is not None, row.token if row is not None and who.kind != "user" else "")


@operation(
    "What the link of a promotion shows: it changes nothing.", grants=["anyone"], answers={200: str}, media="text/html"
)
async def unsubscribing(request: Request) -> Response:
    return HTMLResponse(_PAGE, headers={"cache-control": "no-store", "referrer-policy": "no-referrer"})


@operation("Want no promotions any more, by the link of one, without a log-in (RFC 8058).", grants=["anyone"])
async def unsubscribe(request: Request) -> Consent:
    async with transaction(request) as db:
        await db.execute(CONSENTS.delete().where(CONSENTS.c.token == request.path_params["token"]))
    return Consent(consent=False)


@operation(
    "Write to all who agreed, once for each number.", grants=["operator"], status=202, errors=[NoNumber, NoAddress]
)
async def promotion(request: Request, body: Promotion) -> Promoted:
    id = request.path_params["promotion"]
    if len(id) > 64 or not id.isascii() or not id.replace("-", "").isalnum():
        raise NoNumber("that is no number of a promotion", "use letters, digits and -, at most 64")
    public(settings().address or origin(request))
    async with transaction(request) as db:
        if await insert_new(db, PROMOTIONS, {"id": id, "at": time.time_ns() // 1_000_000}):
            db.later(limits.AT_ONCE, f"ecommerce/notifications/{id}/promote", Promote(body.subject, body.text))
    return Promoted(id)


ROUTES = [
    Route("/people/{user}/consent", agree, methods=["PUT"]),
    Route("/people/{user}/consent", take_back, methods=["DELETE"]),
    Route("/people/{user}/consent", consent, methods=["GET"]),
    Route("/unsubscribe/{token}", unsubscribing, methods=["GET"]),
    Route("/unsubscribe/{token}", unsubscribe, methods=["POST"]),
    Route("/promotions/{promotion}", promotion, methods=["PUT"]),
]
