"""The service ``ecommerce.orders``: takes orders at once, and leads each to its end."""

from __future__ import annotations

from ecommerce import limits
from ecommerce.events import Article, Declined
from ecommerce.orders.checkout import change, checkout, ended, locked, told, turn_back
from ecommerce.orders.routes import ROUTES
from ecommerce.orders.tables import PRICES, TABLES
from ecommerce.rows import insert_new
from gateway import Context, Service
from gateway.sql import Database

service = Service(
    "orders",
    database=Database(tables=TABLES, migrations="ecommerce.orders.migrations"),
    emits=["ecommerce/orders/{order}/status/{user}", "ecommerce/orders/{order}/stuck", *checkout.emits],
    delays=[*checkout.delays],
    routes=ROUTES,
)
checkout.run_by(service, on_fact=told, on_end=ended)


@service.on("ecommerce/payments/{order}/declined")
async def declined(why: Declined, context: Context) -> None:
    """The stock stays reserved, and there is time for another card; after the last one the order turns back."""
    db, order = await context.transaction(), context.variables["order"]
    # The saga's row first, as everywhere: two transactions that lock the same rows lock them in the same order.
    waits = await (checkout.cancel(db, order) if why.final else checkout.extend(db, order, limits.PAY_WITHIN))
    if waits:
        await change(db, await locked(db, order), "declined", why.code)
        if why.final:
            await turn_back(db, order, "declined", why.code)


@service.on("ecommerce/catalog/{sku}/priced")
async def priced(article: Article, context: Context) -> None:
    """Orders' own memory of prices: nobody is asked while somebody buys."""
    db = await context.transaction()
    row = {"price": article.price, "currency": article.currency, "sold": article.sold, "version": article.version}
    if not await insert_new(db, PRICES, {"sku": article.sku, **row}):
        newer = PRICES.c.version < article.version
        await db.execute(PRICES.update().where(PRICES.c.sku == article.sku, newer).values(row))
