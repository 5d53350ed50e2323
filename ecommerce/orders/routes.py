"""What orders answers over HTTP: below ``/ecommerce/orders``."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Annotated, Any

import msgspec
from sqlalchemy import bindparam, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ecommerce import limits
from ecommerce.events import Line, Method, Quantity, Sku
from ecommerce.orders.checkout import Basket, checkout, tell, turn_back
from ecommerce.orders.rules import Fulfilment, Payment, Price, Standing, Wanted, priced
from ecommerce.orders.rules import Order as Status
from ecommerce.orders.tables import KEYS, ORDERS, PRICES
from ecommerce.rows import insert_new
from gateway import GatewayError
from gateway.sql import Transaction, reading, transaction
from gateway.web import Listing, NotAvailable, Page, Principal, Refused, answer, operation, principal

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.KEY_MOST, description="A new one for each order.")]


class Item(msgspec.Struct, forbid_unknown_fields=True):
    sku: Sku
    quantity: Quantity = 1


class NewOrder(msgspec.Struct, forbid_unknown_fields=True):
    lines: Annotated[list[Item], msgspec.Meta(min_length=1, max_length=limits.LINES_MOST)]
    method: Method


class Placed(msgspec.Struct, frozen=True):
    """An order that was taken; the total in minor units."""

    order: str
    status: Status
    total: int
    currency: str


class Order(msgspec.Struct, frozen=True):
    """An order as it stands; amounts in minor units, times in milliseconds since 1970."""

    order: str
    lines: tuple[Line, ...]
    status: Status
    payment: Payment
    fulfilment: Fulfilment
    #: Why it turned back: the code of a decline, the articles that are short.
    detail: str
    total: int
    currency: str
    placed: int
    changed: int
    ended: int | None


class Cancelling(msgspec.Struct, frozen=True):
    order: str


class Orders(Listing, frozen=True):
    user: Annotated[str, msgspec.Meta(description="Whose, where an operator asks; by default everybody's.")] = ""


class NotAnOrder(Refused):
    """What cannot be bought like this."""

    code, status = "bad_order", 422


class KeyReused(Refused):
    """An idempotency key that came before, with another order."""

    code, status = "idempotency_key_reused", 422


class TooLate(GatewayError):
    """An order that goes on, or has ended."""

    code, status, whose = "conflict", 409, "caller"


#: Made once: SQLAlchemy needs longer to make a statement than SQLite to run it.
_HERE = (KEYS.c.user == bindparam("of"), KEYS.c.key == bindparam("known"))
_KNOWN = KEYS.select().where(*_HERE)
_ANSWERED = KEYS.update().where(*_HERE).values(answer=bindparam("said"))
_OLD = select(KEYS.c.at).where(KEYS.c.at < bindparam("before")).limit(limits.PURGE_PAGE)
_FORGET = KEYS.delete().where(KEYS.c.at.in_(_OLD))
_PRICES = PRICES.select().where(PRICES.c.sku.in_(bindparam("skus", expanding=True)))
_INSERT = ORDERS.insert()


@operation(
    "Place an order.",
    grants=["user"],
    answers={202: Placed},
    errors=[NotAnOrder, KeyReused],
    headers={"Idempotency-Key": Key},
    sends={"Location": "Where the order is to be looked at."},
    description="202 as soon as it is written down. For a day, the same key with the same body is the same order.",
)
async def place(request: Request, body: NewOrder) -> Response:
    who, key = principal(request), request.headers["idempotency-key"]
    asked, now = hashlib.sha256(await request.body()).hexdigest(), time.time_ns() // 1_000_000
    id = f"{now:011x}-{secrets.token_hex(8)}"
    async with transaction(request) as db:
        await _forget(db, now)
        # A second request with this key waits here until the first has its answer, and then reads it.
        row = {"user": who.name, "key": key, "asked": asked, "answer": b"", "at": now}
        here = {"of": who.name, "known": key}
        if not await insert_new(db, KEYS, row):
            known = (await db.execute(_KNOWN, here)).one()
            if known.asked != asked:
                raise KeyReused("this Idempotency-Key came with another order", "use a new one for each order")
            said = bytes(known.answer)
        else:
            said = await _accept(db, id, who.name, body, now)
            await db.execute(_ANSWERED, {**here, "said": said})
    order = msgspec.json.decode(said)["order"]
    return answer(msgspec.Raw(said), 202, {"location": f"/ecommerce/orders/{order}"})


async def _accept(db: Transaction, id: str, user: str, new: NewOrder, now: int) -> bytes:
    skus = sorted({item.sku for item in new.lines})
    rows = (await db.execute(_PRICES, {"skus": skus})).all()
    prices = {row.sku: Price(row.price, row.currency, row.sold) for row in rows}
    found = priced([Wanted(item.sku, item.quantity) for item in new.lines], prices)
    if isinstance(found, str):
        raise NotAnOrder(f"the order cannot be taken: {found}", "look at the catalog")
    lines, total, currency = found
    start = Standing()
    row = {"id": id, "user": user, "lines": msgspec.json.encode(lines), "total": total, "currency": currency}
    row |= {"status": start.order, "payment": start.payment, "fulfilment": start.fulfilment}
    await db.execute(_INSERT, {**row, "reason": "", "detail": "", "placed": now, "changed": now})
    tell(db, id, user, "placed", start, lines, currency)
    await checkout.start(db, id, Basket(user, lines, total, currency, new.method))
    return msgspec.json.encode({"order": id, "status": start.order, "total": total, "currency": currency})


async def _forget(db: Transaction, now: int) -> None:
    await db.execute(_FORGET, {"before": now - limits.KEY_KEPT * 1000})


@operation("One's own orders, the newest first; an operator's are everybody's.", grants=["user", "operator"])
async def orders(request: Request, query: Orders) -> Page[Order]:
    who = principal(request)
    wanted = ORDERS.select().order_by(ORDERS.c.id.desc()).limit(query.limit + 1)
    user = query.user if who.kind == "operator" else who.name
    if user or who.kind == "user":
        wanted = wanted.where(ORDERS.c.user == user)
    if query.after:
        wanted = wanted.where(ORDERS.c.id < query.after)
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    return Page.of([_shown(row) for row in rows], query, lambda order: order.order)


@operation("An order.", grants=["user", "operator"], errors=[NotAvailable])
async def order(request: Request) -> Order:
    who = principal(request)
    async with reading(request) as db:
        row = (await db.execute(ORDERS.select().where(ORDERS.c.id == request.path_params["order"]))).first()
    _check_owner(who, row)
    return _shown(row)


@operation(
    "Cancel an order.",
    grants=["user", "operator"],
    status=202,
    errors=[NotAvailable, TooLate],
    description="It turns back, and ends when all is undone. 409 once the goods are on their way out, or it has ended.",
)
async def cancel(request: Request) -> Cancelling:
    who, id = principal(request), request.path_params["order"]
    async with transaction(request) as db:
        row = (await db.execute(ORDERS.select().where(ORDERS.c.id == id))).first()
        _check_owner(who, row)
        if not await checkout.cancel(db, id):
            raise TooLate("the order cannot be cancelled any more", "wait for it, and send it back")
        await turn_back(db, id, "cancelled")
    return Cancelling(id)


def _check_owner(who: Principal, row: Any) -> None:
    # The same answer as where there is none: who asks does not learn whose orders there are.
    if row is None or (who.kind != "operator" and who.name != row.user):
        raise NotAvailable("there is no such order of yours", "look at your list")


def _shown(row: Any) -> Order:
    names = ("status", "payment", "fulfilment", "detail", "total", "currency", "placed", "changed", "ended")
    lines = msgspec.json.decode(row.lines, type=tuple[Line, ...])
    return Order(row.id, lines, *(getattr(row, name) for name in names))


ROUTES = [
    Route("/", place, methods=["POST"]),
    Route("/", orders, methods=["GET"]),
    Route("/{order}", order, methods=["GET"]),
    Route("/{order}/cancel", cancel, methods=["POST"]),
]
