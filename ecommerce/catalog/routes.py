"""What the catalog answers over HTTP: below ``/ecommerce/catalog``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ecommerce import limits
from ecommerce.catalog.tables import ARTICLES
from ecommerce.events import Amount, Article, Currency, Sku
from ecommerce.rows import insert_new
from gateway.sql import reading, transaction
from gateway.web import NotAvailable, answer, body, principal


class Offer(msgspec.Struct, forbid_unknown_fields=True):
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TITLE_MOST)]
    price: Amount
    currency: Currency
    sold: bool = True


class Named(msgspec.Struct):
    """An article's number, as the path says it."""

    sku: Sku


async def articles(request: Request) -> Response:
    """A page of what is sold, by its numbers; ``?after=`` the last of the page before."""
    after = request.query_params.get("after", "")
    wanted = ARTICLES.select().where(ARTICLES.c.sku > after, ARTICLES.c.sold).order_by(ARTICLES.c.sku)
    async with reading(request) as db:
        rows = (await db.execute(wanted.limit(limits.PAGE_MOST))).all()
    found = [Article(*row) for row in rows]
    return answer({"articles": found, "next": found[-1].sku if len(found) == limits.PAGE_MOST else None})


async def article(request: Request) -> Response:
    async with reading(request) as db:
        row = (await db.execute(ARTICLES.select().where(ARTICLES.c.sku == request.path_params["sku"]))).first()
    if row is None:
        raise NotAvailable("there is no such article", "look at the list")
    return answer(Article(*row))


async def offer(request: Request) -> Response:
    """By operators: an article as it is sold from now on. The same again changes nothing."""
    principal(request, "operator")
    new = await body(request, Offer)
    try:
        sku = msgspec.convert(dict(request.path_params), Named).sku
    except msgspec.ValidationError:
        raise NotAvailable("that is no number of an article", "use A-Z, 0-9 and -") from None
    values = msgspec.structs.asdict(new)
    async with transaction(request) as db:
        if not await insert_new(db, ARTICLES, {"sku": sku, **values, "version": 1}):
            here = ARTICLES.c.sku == sku
            same = (ARTICLES.c[name] == value for name, value in values.items())
            if await db.scalar(ARTICLES.select().with_only_columns(ARTICLES.c.sku).where(here, *same)) is None:
                await db.execute(ARTICLES.update().where(here).values(**values, version=ARTICLES.c.version + 1))
        row = (await db.execute(ARTICLES.select().where(ARTICLES.c.sku == sku))).one()
        made = Article(*row)
        db.emit(f"ecommerce/catalog/{sku}/priced", made)
    return answer(made)


ROUTES = [
    Route("/", articles, methods=["GET"]),
    Route("/{sku}", article, methods=["GET"]),
    Route("/{sku}", offer, methods=["PUT"]),
]
