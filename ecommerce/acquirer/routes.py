"""What the simulated acquirer answers over HTTP: below ``/ecommerce/acquirer``."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from ecommerce import limits
from ecommerce.acquirer.rules import STEPS, Asked, Charge, card, chargeable
from ecommerce.acquirer.tables import CHARGES
from ecommerce.events import Amount, Attempt, Currency
from ecommerce.rows import insert_new
from ecommerce.settings import settings
from gateway import GatewayError
from gateway.sql import Transaction, transaction
from gateway.web import NotAvailable, operation

#: Who keeps an account with the bank: the shop's till, and whoever operates both.
SHOP = ("service:ecommerce.payments", "operator")


class Asking(msgspec.Struct, forbid_unknown_fields=True):
    attempt: Attempt
    amount: Amount
    currency: Currency
    method: str


class Charged(msgspec.Struct, frozen=True):
    order: str


class Standing(msgspec.Struct, frozen=True):
    """What a charge is now."""

    order: str
    status: Charge


class Told(msgspec.Struct, frozen=True):
    """What a webhook says."""

    id: str
    kind: str
    order: str
    attempt: int
    amount: int
    currency: str
    code: str


class NotNow(GatewayError):
    """A charge that is past what was asked."""

    code, status, whose = "conflict", 409, "caller"


@operation(
    "Charge a card for an order.",
    grants=SHOP,
    status=202,
    errors=[NotAvailable],
    description="What became of it, a signed webhook says. The same try again is the same.",
)
async def charge(request: Request, body: Asking) -> Charged:
    asked, order = body, request.path_params["order"]
    async with transaction(request) as db:
        row = await _locked(db, order)
        if chargeable(row.status, row.attempt, asked.attempt):
            found = card(asked.method)
            values: dict[str, object] = {"status": found.becomes, "attempt": asked.attempt}
            values |= {"amount": asked.amount, "currency": asked.currency}
            await db.execute(CHARGES.update().where(CHARGES.c.order == order).values(values))
            told = Told(
                f"{order}-{asked.attempt}",
                found.becomes,
                order,
                asked.attempt,
                asked.amount,
                asked.currency,
                found.code,
            )
            for n in range(found.told):
                after = n * settings().thinking / 2 + (settings().thinking if found.slow else 0.0)
                db.later(max(limits.AT_ONCE, after), f"ecommerce/acquirer/{order}/told", told)
    return Charged(order)


@operation("Void a charge, also one that has not come yet.", grants=SHOP, errors=[NotNow, NotAvailable])
async def void(request: Request) -> Standing:
    return await _step(request, "void")


@operation("Take the money of a charge.", grants=SHOP, errors=[NotNow, NotAvailable])
async def capture(request: Request) -> Standing:
    return await _step(request, "capture")


async def _step(request: Request, asked: Asked) -> Standing:
    order = request.path_params["order"]
    async with transaction(request) as db:
        row = await _locked(db, order)
        then = STEPS.get((row.status, asked))
        if then is None:
            raise NotNow(f"cannot {asked} what is {row.status}", "ask for something else")
        await db.execute(CHARGES.update().where(CHARGES.c.order == order).values(status=then))
    return Standing(order, then)


async def _locked(db: Transaction, order: str) -> Any:
    if len(order) > limits.ORDER_MOST:
        raise NotAvailable("that is no number of an order", f"use at most {limits.ORDER_MOST} characters")
    await insert_new(db, CHARGES, {"order": order, "status": "none", "attempt": 0, "amount": 0, "currency": ""})
    return (await db.execute(CHARGES.select().where(CHARGES.c.order == order).with_for_update())).one()


ROUTES = [
    Route("/{order}/charge", charge, methods=["POST"]),
    Route("/{order}/void", void, methods=["POST"]),
    Route("/{order}/capture", capture, methods=["POST"]),
]
