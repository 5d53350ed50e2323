"""What payments answers over HTTP: below ``/ecommerce/payments``."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from ecommerce import limits
from ecommerce.events import Method
from ecommerce.payments.rules import Payment, fault
from ecommerce.payments.steps import locked, step
from ecommerce.payments.tables import PAYMENTS, WEBHOOKS
from ecommerce.rows import insert_new
from ecommerce.settings import settings
from gateway import GatewayError
from gateway.sql import reading, transaction
from gateway.web import NotAvailable, Principal, operation, principal


class Told(msgspec.Struct, frozen=True):
    """What a webhook of the acquirer says."""

    id: Annotated[str, msgspec.Meta(max_length=80, pattern=r"^[^\x00]*$")]
    kind: Literal["approved", "declined"]
    order: Annotated[str, msgspec.Meta(max_length=limits.ORDER_MOST, pattern=r"^[^\x00]*$")]
    attempt: int
    amount: int
    currency: str
    code: str


class AnotherCard(msgspec.Struct, forbid_unknown_fields=True):
    method: Method


class Heard(msgspec.Struct, frozen=True):
    """Whether a webhook changed anything."""

    changed: bool


class Trying(msgspec.Struct, frozen=True):
    order: str
    attempt: int


class Paying(msgspec.Struct, frozen=True):
    """A payment as it stands; the amount in minor units."""

    order: str
    status: Payment
    attempt: int
    amount: int
    currency: str


class NotSigned(GatewayError):
    """A webhook that nobody believes."""

    code, status, whose = "not_signed", 401, "caller"


class NotTheAmount(GatewayError):
    """A webhook about another amount than was asked for."""

    code, status, whose = "not_the_amount", 422, "caller"


class NotNow(GatewayError):
    """A payment that waits for no card."""

    code, status, whose = "conflict", 409, "caller"


@operation(
    "Hear what the acquirer says.",
    grants=["anyone"],
    errors=[NotSigned, NotAvailable, NotTheAmount],
    headers={
        "Acquirer-Signature": "`t=SECONDS,v1=HEX`: HMAC-SHA256 of the seconds, a dot, and the body as it is sent."
    },
    description="200 once it is kept; the same again, and what is over, are 200 too, or they would come for ever.",
)
async def webhook(request: Request, body: Told) -> Heard:
    told, data, now = body, await request.body(), time.time()
    if why := fault(settings().webhook_secret, data, request.headers.get("acquirer-signature", ""), now):
        raise NotSigned(f"the webhook is not believed: {why}", "sign it anew")
    async with transaction(request) as db:
        over = WEBHOOKS.c.at < (int(now) - limits.WEBHOOK_KEPT) * 1000
        old = WEBHOOKS.select().with_only_columns(WEBHOOKS.c.id).where(over).limit(limits.PURGE_PAGE)
        await db.execute(WEBHOOKS.delete().where(WEBHOOKS.c.id.in_(old)))
        row = await locked(db, told.order)
        if row is None:
            raise NotAvailable("no such order was charged", "look at its number")
        changed = False
        if await insert_new(db, WEBHOOKS, {"id": told.id, "at": int(now * 1000)}) and told.attempt == row.attempt:
            if told.kind == "approved" and (told.amount, told.currency) != (row.amount, row.currency):
                raise NotTheAmount("the amount is not what was asked for", "see the charge")
            changed = await step(db, row, told.kind, code=told.code)
    return Heard(changed)


@operation(
    "Try another card, after a decline that was not final.",
    grants=["user"],
    status=202,
    errors=[NotAvailable, NotNow],
)
async def another_card(request: Request, body: AnotherCard) -> Trying:
    who = principal(request)
    async with transaction(request) as db:
        row = await locked(db, request.path_params["order"])
        _check_owner(who, row.user if row else None)
        if row.attempt >= limits.ATTEMPTS or not await step(db, row, "retry", method=body.method):
            raise NotNow(f"the payment is {row.status}", "see the order")
    return Trying(row.order, row.attempt + 1)


@operation("The payment of an order.", grants=["user", "operator"], errors=[NotAvailable])
async def payment(request: Request) -> Paying:
    who = principal(request)
    async with reading(request) as db:
        found = PAYMENTS.select().where(PAYMENTS.c.order == request.path_params["order"])
        row: Any = (await db.execute(found)).first()
    _check_owner(who, row.user if row else None)
    return Paying(row.order, row.status, row.attempt, row.amount, row.currency)


def _check_owner(who: Principal, user: str | None) -> None:
    # The same answer as where there is none: who asks does not learn whose orders there are.
    if user is None or (who.kind != "operator" and who.name != user):
        raise NotAvailable("there is no such payment of yours", "look at the order's number")


ROUTES = [
    Route("/webhooks", webhook, methods=["POST"]),
    Route("/{order}/attempts", another_card, methods=["POST"]),
    Route("/{order}", payment, methods=["GET"]),
]
