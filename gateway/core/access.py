"""Who may do what: principals, and the grants that a topic's declaration gives them.

A grant is one word: ``anyone``, a kind (``user``, ``device``, ``service``, ``operator``), one principal
(``service:orders``), or a principal named by a level of the topic (``user:{user}``, ``device:{device}``). What no
grant gives is denied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from gateway.errors import Misconfigured

KINDS = ("user", "device", "service", "operator")
_GRANT = re.compile(r"anyone|(user|device|service|operator)(:(\{[a-z][a-z0-9_]*\}|[a-zA-Z0-9][a-zA-Z0-9._@-]*))?")


class Principal(msgspec.Struct, frozen=True):
    """Someone who acts: ``user:42``, ``device:pump-7``, ``service:orders``; nobody in particular is ``anonymous``."""

    kind: str = "anonymous"
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


ANONYMOUS = Principal()


def check_grants(grants: Sequence[str], variables: Sequence[str], where: str) -> None:
    """Raise :class:`Misconfigured` for a grant that is no grant, or that names a variable the pattern has not."""
    for grant in grants:
        match = _GRANT.fullmatch(grant)
        if not match:
            raise Misconfigured(
                f"{where}: {grant!r} is not a grant",
                "write anyone, user, device, service, operator, service:NAME or user:{variable}",
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
    for grant in grants:
        if grant == "anyone" or grant == who.kind:
            return True
        kind, _, name = grant.partition(":")
        if name and kind == who.kind:
            if name[0] == "{":
                if bound.get(name[1:-1]) == who.name != "":
                    return True
            elif name == who.name:
                return True
    return False
