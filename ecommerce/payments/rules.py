"""A payment: what each command, webhook and customer makes of it, and which webhooks are believed."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from ecommerce import limits

Payment = Literal["none", "pending", "declined", "authorized", "captured", "voided"]
#: ``approved`` and ``declined`` are the acquirer's words; ``retry`` is another card.
What = Literal["authorize", "approved", "declined", "retry", "void", "capture"]
#: ``charge``: ask the acquirer. The others are facts.
Then = Literal["charge", "authorized", "declined", "voided", "captured", ""]

#: (what it is, what happens) → (what it is then, what follows). Anything absent changes nothing.
STEPS: Final[Mapping[tuple[Payment, What], tuple[Payment, Then]]] = MappingProxyType(
    {
        ("none", "authorize"): ("pending", "charge"),
        ("pending", "approved"): ("authorized", "authorized"),
        ("pending", "declined"): ("declined", "declined"),
        ("declined", "retry"): ("pending", "charge"),
        # The acquirer was asked before: what it may still say is over (it refuses a charge after a void).
        ("none", "void"): ("voided", "voided"),
        ("pending", "void"): ("voided", "voided"),
        ("declined", "void"): ("voided", "voided"),
        ("authorized", "void"): ("voided", "voided"),
        ("voided", "void"): ("voided", "voided"),
        ("authorized", "capture"): ("captured", "captured"),
        ("captured", "capture"): ("captured", "captured"),
    }
)

#: No other card of the same customer will do.
FINAL: Final = frozenset({"stolen_card", "fraud"})

_HEADER: Final = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


def final(code: str, attempt: int) -> bool:
    return code in FINAL or attempt >= limits.ATTEMPTS


def fault(secret: bytes, body: bytes, header: str, now: float) -> str:
    """Say why a webhook is not believed; empty where it is. ``body`` as it came: one byte more is another."""
    match = _HEADER.fullmatch(header)
    if match is None:
        return "it is not signed"
    made = hmac.new(secret, match[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(made, match[2]):
        return "its signature is not the acquirer's"
    if abs(now - int(match[1])) > limits.WEBHOOK_AGE:
        return "it was signed too long ago"
    return ""
