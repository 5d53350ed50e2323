"""Who may do what: principals, the grants that a topic's declaration gives them, and what was taken back.

A grant is one word: ``anyone``, a kind (``user``, ``viewer``, ``device``, ``service``, ``operator``), one principal
(``service:orders``), or a principal named by a level of the topic (``user:{user}``, ``device:{device}``). What no
grant gives is denied; a deny is written with the same words, and wins over every grant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from gateway import limits
from gateway.errors import LimitReached, Misconfigured

#: A viewer is no user: who may look at a fleet is somebody else than who buys in a shop.
KINDS = ("user", "viewer", "device", "service", "operator")
_GRANT = re.compile(rf"anyone|({'|'.join(KINDS)})(:(\{{[a-z][a-z0-9_]*\}}|[a-zA-Z0-9][a-zA-Z0-9._@-]*))?")


class Principal(msgspec.Struct, frozen=True):
    """Someone who acts: ``user:42``, ``device:pump-7``, ``service:orders``; nobody in particular is ``anonymous``."""

    kind: str = "anonymous"
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


ANONYMOUS = Principal()


class Grant(msgspec.Struct, frozen=True):
    """Who a connection acts as, until when, and what says so."""

    principal: Principal
    #: Seconds since 1970; None never ends (a connection without a token, an API key).
    expires: int | None = None
    #: The key that vouches for it: its id in the key ring, ``development``, or ``api:NAME``; empty for nobody's token.
    key: str = ""
    #: The token's own name; empty where it has none.
    jti: str = ""
    #: When the token was made, seconds since 1970; None where it does not say.
    issued: int | None = None


class Revocation(msgspec.Struct, frozen=True):
    """Something that is not believed any more, from ``at`` to ``until``, seconds since 1970."""

    #: ``sub``: one principal's tokens made until ``at``. ``jti``: one token. ``key``: whatever one key vouches for.
    what: Literal["sub", "jti", "key"]
    #: ``user:alice``, a jti, or a key's id.
    name: str
    at: int
    until: int


class Revoked:
    """What was revoked and is not over; bounded by ``limits.REVOCATIONS``."""

    def __init__(self, known: Iterable[Revocation] = ()) -> None:
        self._known: dict[tuple[str, str], Revocation] = {}
        for one in known:
            self.add(one)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, one: Revocation) -> None:
        """Remember ``one``, instead of an earlier one of the same name; raises :class:`LimitReached`."""
        self._known[one.what, one.name] = one
        if len(self._known) > limits.REVOCATIONS:
            self.forget(one.at)
        if len(self._known) > limits.REVOCATIONS:
            raise LimitReached(f"{limits.REVOCATIONS} revocations are in force", "take the key out of the key ring")

    def forget(self, now: float) -> None:
        """Forget what is over: the tokens that it meant are over too."""
        self._known = {name: one for name, one in self._known.items() if one.until > now}

    def covers(self, grant: Grant, now: float) -> Revocation | None:
        """Return what takes ``grant`` back, if anything does."""
        if not self._known:
            return None
        for name in (("key", grant.key), ("jti", grant.jti), ("sub", str(grant.principal))):
            one = self._known.get(name)
            if one is None or one.until <= now:
                continue
            # A token made in the second of its revocation counts as made before it; one that does not tell, too.
            if one.what != "sub" or grant.issued is None or grant.issued <= one.at:
                return one
        return None


def check_grants(grants: Sequence[str], variables: Sequence[str], where: str) -> None:
    """Raise :class:`Misconfigured` for a grant that is no grant, or that names a variable the pattern has not."""
    for grant in grants:
        match = _GRANT.fullmatch(grant)
        if not match:
            raise Misconfigured(
                f"{where}: {grant!r} is not a grant",
                f"write anyone, {', '.join(KINDS)}, service:NAME or user:{{variable}}",
            )
        variable = match[3] or ""
        if variable.startswith("{") and variable[1:-1] not in variables:
            raise Misconfigured(
                f"{where}: grant {grant!r} names {variable}, which is no level of the pattern",
                f"the pattern has {', '.join(f'{{{v}}}' for v in variables) or 'no variable'}",
            )


def may(who: Principal, grants: Sequence[str], bound: Mapping[str, str]) -> bool:
    """Say whether one of ``grants`` covers ``who``, where the topic's variables are ``bound``.

    A variable that a wildcard leaves open is absent from ``bound``, and a grant that needs it does not apply: who may
    read his own topic may not read everybody's.
    """
    return _covers(who, grants, bound, wide=False)


def denied(who: Principal, denials: Sequence[str], bound: Mapping[str, str]) -> bool:
    """Say whether one of ``denials`` covers ``who`` on any topic: one whose variable is left open applies.

    Who may not read his own topic may not read everybody's either, for his is among them.
    """
    return _covers(who, denials, bound, wide=True)


def _covers(who: Principal, words: Sequence[str], bound: Mapping[str, str], *, wide: bool) -> bool:
    for word in words:
        if word == "anyone" or word == who.kind:
            return True
        kind, _, name = word.partition(":")
        if name and kind == who.kind:
            if name[0] == "{":
                level = bound.get(name[1:-1])
                if wide if level is None else level == who.name != "":
                    return True
            elif name == who.name:
                return True
    return False
