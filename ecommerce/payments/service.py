"""The service ``ecommerce.payments``: asks the acquirer, and believes its signed webhooks alone."""

from __future__ import annotations

from ecommerce.events import Authorize, Nothing
from ecommerce.payments.routes import ROUTES
from ecommerce.payments.steps import Charge, locked, step
from ecommerce.payments.tables import PAYMENTS, TABLES
from ecommerce.rows import insert_new
from gateway import Context, Rejected, Service
from gateway.sql import Database, Transaction
from gateway.web import TurnedDown, ask

service = Service(
    "payments",
    database=Database(tables=TABLES, migrations="ecommerce.payments.migrations"),
    emits=[f"ecommerce/payments/{{order}}/{fact}" for fact in ("authorized", "declined", "voided", "captured")],
    delays=["ecommerce/payments/{order}/charge"],
    routes=ROUTES,
    asks=["ecommerce.acquirer"],
)


@service.on("ecommerce/payments/{order}/authorize")
async def authorize(asked: Authorize, context: Context) -> None:
    db, order = await context.transaction(), context.variables["order"]
    await _known(db, order, asked.user, asked.amount, asked.currency)
    await step(db, await locked(db, order), "authorize", method=asked.method)


@service.on("ecommerce/payments/{order}/charge")
async def charge(asked: Charge, context: Context) -> None:
    """An event of its own: the payment is known before the acquirer speaks of it. Asked twice, it is charged once."""
    await _acquirer(context, "charge", asked)


@service.on("ecommerce/payments/{order}/void")
async def void(asked: Nothing, context: Context) -> None:
    order = context.variables["order"]
    await _acquirer(context, "void", {})
    db = await context.transaction()
    await _known(db, order, "", 0, "")
    await step(db, await locked(db, order), "void")


@service.on("ecommerce/payments/{order}/capture")
async def capture(asked: Nothing, context: Context) -> None:
    order = context.variables["order"]
    await _acquirer(context, "capture", {})
    db = await context.transaction()
    await step(db, await locked(db, order), "capture")


async def _acquirer(context: Context, what: str, body: object) -> None:
    try:
        await ask(context, "POST", f"/ecommerce/acquirer/{context.variables['order']}/{what}", body)
    except TurnedDown as error:
        raise Rejected(f"the acquirer answered {error.answered} to {what}") from None


async def _known(db: Transaction, order: str, user: str, amount: int, currency: str) -> None:
    row = {"order": order, "user": user, "status": "none", "attempt": 0, "amount": amount, "currency": currency}
    await insert_new(db, PAYMENTS, row)
