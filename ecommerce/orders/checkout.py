"""The saga of an order: what is asked of whom, what undoes it, and what its customer is told on the way."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from sqlalchemy import bindparam

from ecommerce import limits
from ecommerce.events import Authorize, Line, Nothing, Reserve, Shipped, Short, Status, Stuck, What
from ecommerce.orders.rules import ENDS, TOLD, WHY, Standing, ends_as, follow, is_stuck
from ecommerce.orders.tables import ORDERS
from gateway.sql import Saga, Step, Transaction

_CHANGED = ("status", "payment", "fulfilment", "changed", "ended")
#: Made once: SQLAlchemy needs longer to make a statement than SQLite to run it.
_LOCKED = ORDERS.select().where(ORDERS.c.id == bindparam("order")).with_for_update()
_TURN_BACK = ORDERS.update().where(ORDERS.c.id == bindparam("order"), ORDERS.c.reason == "")
_TURN_BACK = _TURN_BACK.values(reason=bindparam("why"), detail=bindparam("more"))
_CHANGE = ORDERS.update().where(ORDERS.c.id == bindparam("order"))
_CHANGE = _CHANGE.values({name: bindparam(f"new_{name}") for name in _CHANGED})


class Basket(msgspec.Struct, frozen=True):
    """What the saga keeps of an order."""

    user: str
    lines: tuple[Line, ...]
    total: int
    currency: str
    method: str


def sends(step: str, verb: str, basket: Basket) -> object:
    """Return what a command carries: to each service what it needs, and no more."""
    match step, verb:
        case "reserve", "do":
            return Reserve(basket.lines)
        case "authorize", "do":
            return Authorize(basket.user, basket.total, basket.currency, basket.method)
    return Nothing()


checkout = Saga(
    "checkout",
    of="ecommerce.orders",
    key="order",
    data=Basket,
    sends=sends,
    steps=[
        Step(
            "reserve",
            within=limits.RESERVE_WITHIN,
            do="ecommerce/inventory/{order}/reserve",
            done="ecommerce/inventory/{order}/reserved",
            failed="ecommerce/inventory/{order}/short",
            undo="ecommerce/inventory/{order}/release",
            undone="ecommerce/inventory/{order}/released",
        ),
        # A decline is no failure: the customer may have another card. `service.declined` hears it.
        Step(
            "authorize",
            within=limits.PAY_WITHIN,
            do="ecommerce/payments/{order}/authorize",
            done="ecommerce/payments/{order}/authorized",
            undo="ecommerce/payments/{order}/void",
            undone="ecommerce/payments/{order}/voided",
        ),
        # From here only forward: the money is sure and the goods are promised.
        Step(
            "commit",
            within=limits.STEP_WITHIN,
            pivot=True,
            do="ecommerce/inventory/{order}/commit",
            done="ecommerce/inventory/{order}/committed",
        ),
        Step(
            "ship",
            within=limits.SHIP_WITHIN,
            do="ecommerce/shipping/{order}/ship",
            done="ecommerce/shipping/{order}/shipped",
        ),
        # Who pays by card pays when the parcel leaves.
        Step(
            "capture",
            within=limits.STEP_WITHIN,
            do="ecommerce/payments/{order}/capture",
            done="ecommerce/payments/{order}/captured",
        ),
        Step(
            "deliver",
            within=limits.DELIVER_WITHIN,
            do="ecommerce/shipping/{order}/deliver",
            done="ecommerce/shipping/{order}/delivered",
        ),
    ],
)


async def told(db: Transaction, turn: Saga.Turn) -> None:
    """Move the order on with its saga, in the same transaction."""
    row = await locked(db, turn.key)
    if is_stuck(turn.step, turn.what, row.reason):
        db.emit(f"ecommerce/orders/{turn.key}/stuck", Stuck(turn.step))
    if reason := WHY.get((turn.step, turn.what)):
        await turn_back(db, turn.key, reason, ", ".join(turn.fact(Short).skus) if turn.what == "failed" else "")
    if what := TOLD.get((turn.step, turn.what)):
        await change(db, row, what, turn.fact(Shipped).tracking if what == "shipped" else "")


async def ended(db: Transaction, turn: Saga.Turn) -> None:
    row = await locked(db, turn.key)
    await change(db, row, "completed" if turn.phase == "completed" else ends_as(row.reason), row.detail)


async def locked(db: Transaction, order: str) -> Any:
    return (await db.execute(_LOCKED, {"order": order})).one()


async def turn_back(db: Transaction, order: str, reason: str, detail: str = "") -> None:
    """Note why an order turns back; the first reason stays."""
    await db.execute(_TURN_BACK, {"order": order, "why": reason, "more": detail[:200]})


async def change(db: Transaction, row: Any, what: What, detail: str = "") -> bool:
    """Move the order ``row``, as it was locked, on by ``what``, and tell it; False where that leads nowhere."""
    then = follow(Standing(row.status, row.payment, row.fulfilment), what)
    if then is None:
        return False
    now = time.time_ns() // 1_000_000
    ended = now if then.order in ENDS and row.ended is None else row.ended
    values = (then.order, then.payment, then.fulfilment, now, ended)
    changed = {f"new_{name}": value for name, value in zip(_CHANGED, values, strict=True)}
    await db.execute(_CHANGE, {"order": row.id, **changed})
    tell(db, row.id, row.user, what, then, msgspec.json.decode(row.lines, type=tuple[Line, ...]), row.currency, detail)
    return True


def tell(
    db: Transaction,
    order: str,
    user: str,
    what: What,
    now: Standing,
    lines: tuple[Line, ...],
    currency: str,
    detail: str = "",
) -> None:
    """Tell the customer's own topic where an order is."""
    total = sum(line.quantity * line.price for line in lines)
    said = Status(what, now.order, now.payment, now.fulfilment, lines, total, currency, detail[:200])
    db.emit(f"ecommerce/orders/{order}/status/{user}", said)
