"""Tokens that we make ourselves: HS256, by the development key."""

from __future__ import annotations

from typing import Final

import jwt

from gateway import limits
from gateway.adapters.tokens.claims import subject_fault
from gateway.core.access import Principal
from gateway.errors import Refused

#: Whom the development key may vouch for; another key of ours for services too.
ROLES: Final = ("user", "viewer", "operator")
_NAMED: Final = (*ROLES, "service")


def issue(
    secret: bytes,
    principal: Principal,
    seconds: int,
    now: float,
    *,
    audience: str = "",
    issuer: str = "",
    jti: str = "",
    channel: str = "",
    kid: str = "",
) -> str:
    """Return a token of a user, viewer or operator until ``seconds`` after ``now``; of one subscription by ``channel``.

    ``kid``: the key of the ring that ``secret`` is, where it is not the development key; then for a service too. Raises
    :class:`Refused` for any other principal, and for a life that is not 1 to ``limits.TOKEN_LIFE`` seconds.
    """
    if principal.kind not in (_NAMED if kid else ROLES):
        raise Refused(f"{principal} gets no token here", "tokens name a user, a viewer or an operator")
    if not 0 < seconds <= limits.TOKEN_LIFE:
        raise Refused(f"a token cannot last {seconds} seconds", f"use 1 to {limits.TOKEN_LIFE}")
    if fault := subject_fault(principal.name):
        raise Refused(f"the name {principal.name[:40]!r} {fault}", "choose another name")
    claims: dict[str, object] = {"sub": principal.name, "role": principal.kind}
    claims |= {"iat": int(now), "exp": int(now) + seconds}
    named = {"aud": audience, "iss": issuer, "jti": jti, "channel": channel}
    claims |= {name: value for name, value in named.items() if value}
    return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": kid} if kid else None)
