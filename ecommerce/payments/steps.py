"""One step of a payment in the database, and what follows of it."""

from __future__ import annotations

from typing import Any

import msgspec

from ecommerce import limits
from ecommerce.events import Declined, Nothing
from ecommerce.payments.rules import STEPS, What, final
from ecommerce.payments.tables import PAYMENTS
from gateway.sql import Transaction


class Charge(msgspec.Struct, frozen=True):
    """To be asked of the acquirer."""

    attempt: int
    method: str
    amount: int
    currency: str


async def locked(db: Transaction, order: str) -> Any:
    """Return the payment of ``order``, for one change; None where there is none."""
    return (await db.execute(PAYMENTS.select().where(PAYMENTS.c.order == order).with_for_update())).first()


async def step(db: Transaction, row: Any, what: What, *, method: str = "", code: str = "") -> bool:
    """Do ``what`` to the payment ``row``; False where it changes nothing."""
    found = STEPS.get((row.status, what))
    if found is None:
        return False
    status, then = found
    attempt = row.attempt + (then == "charge")
    values = {"status": status, "attempt": attempt}
    await db.execute(PAYMENTS.update().where(PAYMENTS.c.order == row.order).values(values))
    match then:
        case "charge":
            asked = Charge(attempt, method, row.amount, row.currency)
            db.later(limits.AT_ONCE, f"ecommerce/payments/{row.order}/charge", asked)
        case "declined":
            why = Declined(code, attempt, final(code, attempt))
            db.emit(f"ecommerce/payments/{row.order}/declined", why)
        case _:
            db.emit(f"ecommerce/payments/{row.order}/{then}", Nothing())
    return True
