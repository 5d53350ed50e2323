"""Refresh tokens: each is good once, and one that comes again ends all that came from the same login."""

from __future__ import annotations

from typing import Literal

import msgspec

from accounts import limits

Verdict = Literal["rotate", "again", "reuse", "over"]


class Known(msgspec.Struct, frozen=True):
    """What is known of a refresh token that came. Times in milliseconds since 1970."""

    #: When it was used first.
    used: int | None
    expires: int
    #: When its family ended.
    ended: int | None
    #: Tokens that were given for it, and those of them that were used.
    given: int = 0
    given_used: int = 0


def judge(known: Known | None, now: int) -> Verdict:
    """Decide what a refresh token is good for.

    ``again``: another token for it, which changes nothing else. A browser tab that is duplicated has its original's
    token, and an answer may be lost: within ``limits.REUSE_WITHIN``, and until one of its successors is used, two who
    bring it are taken for one. ``reuse``: one of the two stole it (RFC 9700, 4.14.2).
    """
    if known is None or known.ended is not None:
        return "over"
    if known.used is None:
        return "rotate" if now < known.expires else "over"
    if known.given_used or now - known.used > limits.REUSE_WITHIN * 1000:
        return "reuse"
    return "again" if known.given < limits.SUCCESSORS else "over"
