"""Refresh tokens: each is good once, and one that comes twice ends all that came from the same login."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["rotate", "reuse", "over"]


class Known(msgspec.Struct, frozen=True):
    """What is known of a refresh token that came. Times in milliseconds since 1970."""

    used: int | None
    expires: int
    #: When its family ended.
    ended: int | None


def judge(known: Known | None, now: int) -> Verdict:
    """Decide what a refresh token is good for.

    ``reuse``: it was used before, so that two have it, and one of them stole it (RFC 9700, 4.14.2).
    """
    if known is None or known.ended is not None:
        return "over"
    if known.used is not None:
        return "reuse"
    return "rotate" if now < known.expires else "over"
