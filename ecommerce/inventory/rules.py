"""A reservation: what each command makes of it, and the arithmetic of stock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal

from ecommerce.events import Line

#: What an order has of us; ``none`` before anything was asked.
Reservation = Literal["none", "held", "short", "released", "committed"]
Asked = Literal["reserve", "release", "commit"]
#: What is done with stock.
Act = Literal["take", "give_back", "hand_out", "nothing"]
Answer = Literal["reserved", "short", "released", "committed", ""]

#: (what there is, what is asked) → (what there is then, what is done, what is answered). ``take`` may fall short: then
#: the reservation is ``short``, and so is the answer. Anything absent is illegal.
STEPS: Final[Mapping[tuple[Reservation, Asked], tuple[Reservation, Act, Answer]]] = MappingProxyType(
    {
        ("none", "reserve"): ("held", "take", "reserved"),
        ("held", "reserve"): ("held", "nothing", "reserved"),
        ("short", "reserve"): ("short", "nothing", "short"),
        # Released before it was reserved: the order has turned back, and nothing may be kept for it any more.
        ("released", "reserve"): ("released", "nothing", ""),
        ("committed", "reserve"): ("committed", "nothing", "reserved"),
        ("none", "release"): ("released", "nothing", "released"),
        ("held", "release"): ("released", "give_back", "released"),
        ("short", "release"): ("released", "nothing", "released"),
        ("released", "release"): ("released", "nothing", "released"),
        ("held", "commit"): ("committed", "hand_out", "committed"),
        ("committed", "commit"): ("committed", "nothing", "committed"),
    }
)


def summed(lines: Iterable[Line]) -> list[tuple[str, int]]:
    """Return how much of each article, by its number: two lines of one are one, and all orders lock in one order."""
    found = Counter[str]()
    for line in lines:
        found[line.sku] += line.quantity
    return sorted(found.items())
