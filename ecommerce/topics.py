"""The topics of the shop: what is asked of whom, what is told, and who may read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ecommerce.events import Article, Authorize, Declined, Nothing, Reserve, Shipped, Short, Status, Stuck
from gateway import Topic

#: service → what it is asked, by orders alone.
ASKED: Final[dict[str, dict[str, Any]]] = {
    "inventory": {"reserve": Reserve, "release": Nothing, "commit": Nothing},
    "payments": {"authorize": Authorize, "void": Nothing, "capture": Nothing},
    "shipping": {"ship": Nothing, "deliver": Nothing},
}
#: service → what it tells of an order.
TOLD: Final[dict[str, dict[str, Any]]] = {
    "inventory": {"reserved": Nothing, "short": Short, "released": Nothing, "committed": Nothing},
    "payments": {"authorized": Nothing, "declined": Declined, "voided": Nothing, "captured": Nothing},
    "shipping": {"shipped": Shipped, "delivered": Nothing},
    "orders": {"stuck": Stuck},
}
#: service → what it tells itself, later.
LATER: Final[dict[str, tuple[str, ...]]] = {
    "acquirer": ("told",),
    "payments": ("charge",),
    "shipping": ("packed", "arrived"),
}


def topics() -> Iterator[Topic]:
    """What is of one order has one key, so that it arrives in its order."""
    yield Topic(pattern="ecommerce/letters", read=("operator",))
    yield Topic(pattern="ecommerce/catalog/{sku}/priced", read=("anyone",), retain=True, schema=Article)
    yield Topic(
        pattern="ecommerce/orders/{order}/status/{user}",
        key="{order}",
        read=("user:{user}", "operator"),
        retain=True,
        schema=Status,
    )
    for service, names in ASKED.items():
        for name, schema in names.items():
            pattern = f"ecommerce/{service}/{{order}}/{name}"
            yield Topic(pattern=pattern, key="{order}", kind="command", read=("operator",), schema=schema)
    for service, names in TOLD.items():
        for name, schema in names.items():
            pattern = f"ecommerce/{service}/{{order}}/{name}"
            yield Topic(pattern=pattern, key="{order}", read=("operator",), schema=schema)
    for service, own in LATER.items():
        for name in own:
            yield Topic(pattern=f"ecommerce/{service}/{{order}}/{name}", key="{order}", kind="command")
    for name in ("send", "promote"):
        yield Topic(pattern=f"ecommerce/notifications/{{message}}/{name}", key="{message}", kind="command")
