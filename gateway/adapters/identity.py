"""A new id: UUID version 7 (RFC 9562, 5.7), which sorts by the time it was made."""

from __future__ import annotations

import os
import time
from typing import Final

_VERSION_AND_VARIANT: Final = 7 << 76 | 2 << 62
_MASK: Final = (1 << 128) - 1 ^ (0xF << 76 | 0x3 << 62)


def new_id() -> str:
    """Return a UUIDv7 as text: 48 bits of milliseconds since 1970, then random bits."""
    bits = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    text = f"{bits & _MASK | _VERSION_AND_VARIANT:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
