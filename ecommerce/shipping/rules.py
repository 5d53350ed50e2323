"""A parcel: what each command and each hour makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Parcel = Literal["none", "prepared", "shipped", "moving", "delivered"]
#: ``ship`` and ``deliver`` are asked; ``packed`` and ``arrived`` happen.
What = Literal["ship", "packed", "deliver", "arrived"]
#: ``pack`` and ``drive`` take their time; ``shipped`` and ``delivered`` are told.
Then = Literal["pack", "drive", "shipped", "delivered", ""]

#: (where it is, what happens) → (where it is then, what follows). Anything absent changes nothing: it came twice.
STEPS: Final[Mapping[tuple[Parcel, What], tuple[Parcel, Then]]] = MappingProxyType(
    {
        ("none", "ship"): ("prepared", "pack"),
        # Asked again: what should have happened by itself may have come to nothing, so it is set going once more.
        ("prepared", "ship"): ("prepared", "pack"),
        ("prepared", "packed"): ("shipped", "shipped"),
        ("shipped", "ship"): ("shipped", "shipped"),
        ("moving", "ship"): ("moving", "shipped"),
        ("delivered", "ship"): ("delivered", "shipped"),
        ("shipped", "deliver"): ("moving", "drive"),
        ("moving", "deliver"): ("moving", "drive"),
        ("moving", "arrived"): ("delivered", "delivered"),
        ("delivered", "deliver"): ("delivered", "delivered"),
    }
)


def tracking(order: str) -> str:
    """Return the number of an order's parcel: the same, whoever asks, however often."""
    return f"TG{hashlib.sha256(order.encode()).hexdigest()[:12].upper()}"
