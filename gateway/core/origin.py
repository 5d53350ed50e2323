"""Which pages may use a gateway: the Origin that a browser sends, judged.

Without this any page on the web could publish through the machine of whoever visits it (RFC 6455, 10.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


class Origins:
    """The origins an operator allows, beside the gateway's own. ``local``: only this machine can reach the gateway."""

    def __init__(self, allowed: Iterable[str], *, local: bool) -> None:
        self._allowed = frozenset(allowed)
        self._local = local

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Say whether a page of ``origin`` may ask, on a connection to ``host``; programs send no origin."""
        if origin is None or origin in self._allowed or "*" in self._allowed:
            return True
        place = origin.partition("://")[2]
        if self._local:
            # Any page of this machine, as developers have many. Not whatever ``host`` says: a name on the web can be
            # made to mean 127.0.0.1 (DNS rebinding).
            return place.rsplit(":", 1)[0] in _LOOPBACK or place in _LOOPBACK
        return place == host
