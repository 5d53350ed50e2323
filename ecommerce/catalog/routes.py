"""What the catalog answers over HTTP: below ``/ecommerce/catalog``."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from ecommerce.catalog.tables import ARTICLES
from ecommerce.events import Amount, Article, Currency, Sku, Title
from ecommerce.rows import insert_new
from gateway.sql import reading, transaction
from gateway.web import Listing, NotAvailable, Page, operation


class Offer(msgspec.Struct, forbid_unknown_fields=True):
    title: Title
    price: Amount
    currency: Currency
    sold: bool = True


class Named(msgspec.Struct):
    """An article's number, as the path says it."""

    sku: Sku


@operation("What is sold, by its numbers.", grants=["anyone"])
async def articles(request: Request, query: Listing) -> Page[Article]:
    wanted = ARTICLES.select().where(ARTICLES.c.sku > query.after, ARTICLES.c.sold).order_by(ARTICLES.c.sku)
    async with reading(request) as db:
        rows = (await db.execute(wanted.limit(query.limit + 1))).all()
    return Page.of([Article(*row) for row in rows], query, lambda article: article.sku)


@operation("An article.", grants=["anyone"], errors=[NotAvailable])
async def article(request: Request) -> Article:
    async with reading(request) as db:
        row = (await db.execute(ARTICLES.select().where(ARTICLES.c.sku == request.path_params["sku"]))).first()
    if row is None:
        raise NotAvailable("there is no such article", "look at the list")
    return Article(*row)


@operation(
    "Sell an article like this from now on.",
    grants=["operator"],
    errors=[NotAvailable],
    description="The same again changes nothing.",
)
async def offer(request: Request, body: Offer) -> Article:
    try:
        sku = msgspec.convert(dict(request.path_params), Named).sku
    except msgspec.ValidationError:
        raise NotAvailable("that is no number of an article", "use A-Z, 0-9 and -") from None
    values = msgspec.structs.asdict(body)
    async with transaction(request) as db:
        if not await insert_new(db, ARTICLES, {"sku": sku, **values, "version": 1}):
            here = ARTICLES.c.sku == sku
            same = (ARTICLES.c[name] == value for name, value in values.items())
            if await db.scalar(ARTICLES.select().with_only_columns(ARTICLES.c.sku).where(here, *same)) is None:
                await db.execute(ARTICLES.update().where(here).values(**values, version=ARTICLES.c.version + 1))
        row = (await db.execute(ARTICLES.select().where(ARTICLES.c.sku == sku))).one()
        made = Article(*row)
        db.emit(f"ecommerce/catalog/{sku}/priced", made)
    return made


ROUTES = [
    Route("/", articles, methods=["GET"]),
    Route("/{sku}", article, methods=["GET"]),
    Route("/{sku}", offer, methods=["PUT"]),
]
