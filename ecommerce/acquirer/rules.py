"""A charge at the simulated acquirer, and what each test card does."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

Charge = Literal["none", "silent", "approved", "declined", "captured", "voided", "refunded"]
Asked = Literal["void", "capture"]


class Card(msgspec.Struct, frozen=True):
    """What a card does when it is charged."""

    becomes: Charge
    #: Why it is declined.
    code: str = ""
    #: How often the shop is told, and whether the bank thinks first.
    told: int = 1
    slow: bool = False


CARDS: Final[Mapping[str, Card]] = MappingProxyType(
    {
        "card_ok": Card("approved"),
        "card_slow": Card("approved", slow=True),
        "card_twice": Card("approved", told=2),
        "card_late_twice": Card("approved", told=2, slow=True),
        "card_declined": Card("declined", "insufficient_funds"),
        "card_stolen": Card("declined", "stolen_card"),
        "card_silent": Card("silent", told=0),
    }
)

#: (what the charge is, what is asked) → what it is then. Anything absent is refused.
STEPS: Final[Mapping[tuple[Charge, Asked], Charge]] = MappingProxyType(
    {
        # Before the charge came: it will be refused.
        ("none", "void"): "voided",
        ("silent", "void"): "voided",
        ("declined", "void"): "voided",
        ("approved", "void"): "voided",
        ("captured", "void"): "refunded",
        ("voided", "void"): "voided",
        ("refunded", "void"): "refunded",
        ("approved", "capture"): "captured",
        ("captured", "capture"): "captured",
    }
)


def chargeable(status: Charge, known: int, attempt: int) -> bool:
    """Say whether try number ``attempt`` is charged: once each, after a decline alone, never after the end."""
    return status in ("none", "declined") and attempt > known


def card(method: str) -> Card:
    return CARDS.get(method, Card("declined", "unknown_card"))


def signature(secret: bytes, body: bytes, at: int) -> str:
    """Return the header by which the shop knows that ``body`` is ours, said at second ``at``."""
    made = hmac.new(secret, b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={made}"
