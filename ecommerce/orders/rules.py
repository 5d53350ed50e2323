"""An order: three axes, each a table of what leads where; what a basket costs, and how an order ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from ecommerce import limits
from ecommerce.events import Line, What

Order = Literal["accepted", "reserved", "confirmed", "completed", "out_of_stock", "expired", "cancelled"]
Payment = Literal["none", "authorized", "captured", "declined", "voided"]
Fulfilment = Literal["unfulfilled", "shipped", "delivered"]
#: How an order that turns back ends.
Reason = Literal["", "out_of_stock", "expired", "cancelled", "declined"]

#: (where it is, what happens) → where it goes. Anything absent is illegal on this axis.
ORDER: Final[Mapping[tuple[str, str], Order]] = MappingProxyType(
    {
        ("accepted", "reserved"): "reserved",
        ("reserved", "confirmed"): "confirmed",
        ("confirmed", "completed"): "completed",
        ("accepted", "out_of_stock"): "out_of_stock",
        ("accepted", "expired"): "expired",
        ("reserved", "expired"): "expired",
        ("accepted", "cancelled"): "cancelled",
        ("reserved", "cancelled"): "cancelled",
    }
)
PAYMENT: Final[Mapping[tuple[str, str], Payment]] = MappingProxyType(
    {
        ("none", "authorized"): "authorized",
        ("none", "declined"): "declined",
        ("declined", "declined"): "declined",
        # Another card.
        ("declined", "authorized"): "authorized",
        ("authorized", "captured"): "captured",
        ("authorized", "voided"): "voided",
    }
)
FULFILMENT: Final[Mapping[tuple[str, str], Fulfilment]] = MappingProxyType(
    {("unfulfilled", "shipped"): "shipped", ("shipped", "delivered"): "delivered"}
)
ENDS: Final = frozenset({"completed", "out_of_stock", "expired", "cancelled"})

#: (step of the saga, what became of it) → what is told of the order. Other turns are told nobody.
TOLD: Final[Mapping[tuple[str, str], What]] = MappingProxyType(
    {
        ("reserve", "done"): "reserved",
        ("authorize", "done"): "authorized",
        ("commit", "done"): "confirmed",
        ("ship", "done"): "shipped",
        ("capture", "done"): "captured",
        ("deliver", "done"): "delivered",
        ("authorize", "undone"): "voided",
    }
)
#: (step, what became of it) → why the order turns back. A cancel is said by whoever cancels.
WHY: Final[Mapping[tuple[str, str], Reason]] = MappingProxyType(
    {("reserve", "failed"): "out_of_stock", ("reserve", "late"): "expired", ("authorize", "late"): "expired"}
)


class Standing(msgspec.Struct, frozen=True):
    """Where an order is on each axis."""

    order: str = "accepted"
    payment: str = "none"
    fulfilment: str = "unfulfilled"


def follow(now: Standing, what: str) -> Standing | None:
    """Return where ``what`` leads; None where it leads nowhere: it came twice, or too late to matter."""
    for axis, table in (("order", ORDER), ("payment", PAYMENT), ("fulfilment", FULFILMENT)):
        if then := table.get((getattr(now, axis), what)):
            return msgspec.structs.replace(now, **{axis: then})
    return None


def ends_as(reason: str) -> What:
    """Return how an order that turned back for ``reason`` ends; a declined card cancels it."""
    ends: dict[str, What] = {"out_of_stock": "out_of_stock", "expired": "expired"}
    return ends.get(reason, "cancelled")


def is_stuck(step: str, what: str, reason: str) -> bool:
    """Say whether an operator should hear that ``step`` is late: all but a customer who did not pay in time."""
    return what == "late" and (step != "authorize" or reason != "")


class Price(msgspec.Struct, frozen=True):
    """What an article costs."""

    price: int
    currency: str
    sold: bool


class Wanted(msgspec.Struct, frozen=True):
    """Some of one article."""

    sku: str
    quantity: int


def priced(wanted: Sequence[Wanted], prices: Mapping[str, Price]) -> tuple[tuple[Line, ...], int, str] | str:
    """Return lines at the prices of now, their total and its currency; or what is wrong with them, in words."""
    missing = sorted({one.sku for one in wanted if one.sku not in prices or not prices[one.sku].sold})
    if missing:
        return f"not sold: {', '.join(missing)}"
    currencies = {prices[one.sku].currency for one in wanted}
    if len(currencies) != 1:
        return "articles of one currency alone make an order"
    lines = tuple(Line(one.sku, one.quantity, prices[one.sku].price) for one in wanted)
    total = sum(line.quantity * line.price for line in lines)
    if total > limits.AMOUNT_MOST:
        return f"an order is at most {limits.AMOUNT_MOST} minor units"
    return lines, total, currencies.pop()
