"""What the services of the shop tell one another: ids and amounts, never a person. Money is in minor units."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ecommerce import limits

# `(?!\n)`: to Python, $ is also before a last newline.
Sku = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9][A-Z0-9-]{0,31}(?!\n)$")]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=limits.QUANTITY_MOST)]
#: PostgreSQL keeps no NUL, and a line of a mail no other control character.
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TITLE_MOST, pattern=r"^[^\x00-\x1f]*(?!\n)$")]
#: A number of somebody's try, counted from 1.
Attempt = Annotated[int, msgspec.Meta(ge=1, le=limits.ATTEMPTS)]
#: Minor units of the currency, such as cents.
Amount = Annotated[int, msgspec.Meta(ge=0, le=limits.AMOUNT_MOST)]
#: ISO 4217.
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}(?!\n)$")]
#: What the acquirer gave the customer for a card, and never its number, which people paste: twelve digits are too many.
Method = Annotated[
    str,
    msgspec.Meta(max_length=limits.METHOD_MOST, pattern=r"^(card|tok)_(?!.*([0-9]_*){12})[A-Za-z0-9_]+(?!\n)$"),
]


class Article(msgspec.Struct, frozen=True):
    """An article as it is sold from now on."""

    sku: Sku
    title: Title
    price: Amount
    currency: Currency
    #: Whether it can be ordered.
    sold: bool
    #: Counted up by each change.
    version: int


class Line(msgspec.Struct, frozen=True):
    """Some of one article, at the price of the moment it was ordered."""

    sku: Sku
    quantity: Quantity
    price: Amount


class Reserve(msgspec.Struct, frozen=True):
    """Asks inventory to keep what an order needs."""

    lines: tuple[Line, ...]


class Short(msgspec.Struct, frozen=True):
    """There is not enough of these."""

    skus: tuple[str, ...]


class Authorize(msgspec.Struct, frozen=True):
    """Asks payments for an amount. ``method``: as `Method`, which the door held it to; it tells nothing."""

    user: str
    amount: Amount
    currency: Currency
    method: str


class Declined(msgspec.Struct, frozen=True):
    """The acquirer refused. ``final``: no other card will do."""

    code: str
    attempt: int
    final: bool


class Shipped(msgspec.Struct, frozen=True):
    tracking: str


class Nothing(msgspec.Struct, frozen=True):
    """The topic says it all."""


#: What became of an order, in the words of ``Status.what``.
What = Literal[
    "placed", "reserved", "authorized", "confirmed", "captured", "shipped", "delivered", "completed",
    "declined", "voided", "out_of_stock", "expired", "cancelled",
]  # fmt: skip


class Status(msgspec.Struct, frozen=True):
    """An order after each change, for its customer and for whoever writes to them."""

    what: What
    order: str
    payment: str
    fulfilment: str
    lines: tuple[Line, ...]
    total: Amount
    currency: Currency
    #: A tracking number, the code of a decline, the articles that are short.
    detail: str = ""


class Letter(msgspec.Struct, frozen=True):
    """A service of the shop gave an event up; what was in it stands in the dead letter alone."""

    service: str
    id: str
    topic: str
    reason: str
    #: Letters before this one that were not told.
    more: int = 0


class Stuck(msgspec.Struct, frozen=True):
    """A service did not answer in time: somebody should look, mostly at its dead letters."""

    step: str
