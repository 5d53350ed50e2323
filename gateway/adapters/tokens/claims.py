"""The claims of a token (RFC 7519), held against what its key may vouch for."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway import limits
from gateway.adapters.tokens.form import REMEDY
from gateway.adapters.tokens.key import Vouches
from gateway.core.access import KINDS, Grant, Principal
from gateway.core.topic import is_filter, matches
from gateway.errors import BadToken, TokenExpired

#: The last second of the year 9999: what lies beyond is no date but a mistake of unit.
_LAST: Final = 253_402_300_799


class Permit(msgspec.Struct, frozen=True):
    """What a subscription token says: who may subscribe to one channel, until when."""

    grant: Grant
    channel: str
    #: Whether its key may let in whom no grant does. Else the token is an end, and no right.
    opens: bool


def granted(claims: dict[str, Any], by: Vouches, key: str, now: float) -> Grant:
    """Return whom ``claims`` name; raises :class:`BadToken`, or :class:`TokenExpired` from ``exp`` on.

    ``by``: what ``key``, whose signature is good, may vouch for. Claims that neither RFC 7519 nor ``by`` names are
    ignored, ``role`` excepted: ``user`` where it is absent.
    """
    if "channel" in claims:
        # Who was given one topic would otherwise come in with all that its bearer may.
        raise BadToken("the token is for one subscription", "bring it in the subscribe command, and another to connect")
    return _granted(claims, by, key, now)


def permitted(claims: dict[str, Any], by: Vouches, key: str, now: float) -> Permit:
    """Return what the ``claims`` of a subscription token permit; raises as :func:`granted`.

    A channel that is a filter is opened by no key: a filter meets more than its own topics.
    """
    channel = claims.get("channel")
    if not isinstance(channel, str) or not channel:
        raise BadToken("the token's channel is absent or no text", "name the one topic or filter in channel")
    opens = not is_filter(channel) and any(matches(filter, channel) for filter in by.opens)
    return Permit(_granted(claims, by, key, now), channel, opens)


def _granted(claims: dict[str, Any], by: Vouches, key: str, now: float) -> Grant:
    _check_audience(claims, by.audience)
    if by.issuer and claims.get("iss") != by.issuer:
        raise BadToken(f"the token is not from {by.issuer!r}", REMEDY)
    subject, role = claims.get("sub"), claims.get("role", "user")
    if not isinstance(subject, str):
        raise BadToken("the token's sub is absent or no text", "name the bearer in sub, as a text")
    if fault := subject_fault(subject):
        raise BadToken(f"the token's sub {fault}", "choose another sub")
    if role not in KINDS:
        raise BadToken("the token's role is unknown", f"use {' or '.join(by.roles)}")
    if role not in by.roles:
        raise BadToken(f"the token's key vouches for no {role}", f"use {' or '.join(by.roles)}, or tokens.keys.roles")
    if role == "device" and ":" in subject:
        raise BadToken("the token's sub has :, which no device id can hold", "choose another sub")
    expires = _date(claims, "exp")
    if expires is None:
        raise BadToken("the token has no exp", "tokens here end: set exp")
    for name in by.required:
        if claims.get(name) in (None, "", []):
            raise BadToken(f"the token has no {name}", f"set {name}, or leave it out of tokens.keys.required")
    for name in ("nbf", "iat"):
        date = _date(claims, name)
        if date is not None and date > now + limits.CLOCK_LEEWAY:
            raise BadToken(f"the token's {name} lies in the future", "set the clock of its issuer, or ours")
    jti = claims.get("jti", "")
    if not isinstance(jti, str) or len(jti) > limits.ID_BYTES or not jti.isprintable():
        raise BadToken("the token's jti is no short text", f"use printable text, at most {limits.ID_BYTES}")
    if expires <= now:
        raise TokenExpired("the token's time is over", REMEDY)
    if expires > now + limits.TOKEN_LIFE + limits.CLOCK_LEEWAY:
        # A revocation is remembered for as long, and must not be over before the token is.
        raise BadToken(f"the token lasts longer than {limits.TOKEN_LIFE // 86_400} days", "set an earlier exp")
    return Grant(Principal(role, subject), expires, key, jti, _date(claims, "iat"))


def _check_audience(claims: dict[str, Any], wanted: str) -> None:
    audience = claims.get("aud", [])
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise BadToken("the token's aud is neither a text nor a list of texts", REMEDY)
    if wanted and wanted not in audiences:
        raise BadToken(f"the token is not for {wanted!r}", "ask its issuer for that aud")
    if audiences and not wanted:
        # RFC 7519, 4.1.3: who finds an aud and is not in it must reject. Unset, nobody here is in any.
        raise BadToken("the token has an aud and this gateway has none", "set tokens.audience, or leave aud out")


def _date(claims: dict[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    # A bool is an int to Python: `exp: true` would be the year 1970, `nbf: true` always past.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST:
        raise BadToken(f"the token's {name} is no time in seconds since 1970", "write it as a number")
    return int(value)


def subject_fault(subject: str) -> str:
    """Say what keeps ``subject`` from being a principal's name, a topic level and part of a log's key, if anything."""
    if not subject or subject != subject.strip():
        return "is empty, or begins or ends with a space"
    try:
        size = len(subject.encode())
    except UnicodeEncodeError:
        return "has a lone surrogate"
    if size > limits.SUBJECT_BYTES:
        return f"is longer than {limits.SUBJECT_BYTES} bytes"
    if not subject.isprintable():
        return "has a control character"
    if not {"/", "+", "#"}.isdisjoint(subject):
        return "has / or + or #, which no topic level can hold"
    return ""
