"""What people are told: which template an order's change has, by which channels, and what a mail server means."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Channel = Literal["mail", "sms", "push"]
#: ``nobody``: there is no such account any more. ``refused``: the server will never take it. ``unset``: no channel.
Outcome = Literal["sent", "nobody", "refused", "no_consent", "unset"]

#: What became of an order → the template that says so. Of the rest nobody needs a mail.
TEMPLATES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "confirmed": "confirmed",
        "out_of_stock": "out_of_stock",
        "declined": "declined",
        "expired": "expired",
        "cancelled": "cancelled",
        "shipped": "shipped",
        "delivered": "delivered",
    }
)
#: What is worth a short message too.
SHORT: Final = frozenset({"shipped"})

#: Digits after the point (ISO 4217); two where it is not listed.
_DIGITS: Final = {"JPY": 0, "KRW": 0, "CLP": 0, "KWD": 3, "BHD": 3, "TND": 3}


def channels(template: str, phone: bool) -> tuple[Channel, ...]:
    """Return by which ways a customer is told, where ``phone`` says whether short messages can be sent at all."""
    return ("mail", "sms") if phone and template in SHORT else ("mail",)


def refused(code: int) -> bool:
    """Say whether an SMTP reply is for ever (RFC 5321, 4.2.1: 5yz), so that asking again only annoys."""
    return 500 <= code < 600


def shown(amount: int, currency: str) -> str:
    """Return an amount in minor units as people write it: ``12.90 EUR``."""
    digits = _DIGITS.get(currency, 2)
    whole, part = divmod(amount, 10**digits)
    return f"{whole}.{part:0{digits}d} {currency}" if digits else f"{whole} {currency}"
